/* The agent's side of the generator: a WebSocket server that echoes what it hears. */
#ifndef BENCH_AGENT_H
#define BENCH_AGENT_H

#include "call.h"

static void accept_agents(int listener)
{
    static int next; /* goes round, so that no event of this turn means another connection */
    int fd;
    while ((fd = accept4(listener, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC)) >= 0) {
        int tried = 0;
        while (agents[next] && tried++ < MAX_CALLS)
            next = (next + 1) % MAX_CALLS;
        struct agent *agent = agents[next] ? NULL : calloc(1, sizeof *agent);
        if (!agent) {
            close(fd);
            return;
        }
        set_no_delay(fd);
        agent->link.fd = fd;
        agent->index = next;
#ifdef BENCH_TLS
        if (tls) {
            agent->link.tls = SSL_new(tls);
            SSL_set_fd(agent->link.tls, fd);
            SSL_set_accept_state(agent->link.tls);
        }
#endif
        agents[next] = agent;
        watch(epoll, EPOLL_CTL_ADD, fd, EPOLLIN, tag(AGENT, next));
        next = (next + 1) % MAX_CALLS;
    }
}

/* Find the call by the UUID in the request's path. */
static struct call *call_of(const char *request)
{
    char digits[33] = "";
    int count = 0;
    uint32_t index, number;
    const char *at = strchr(request, '/');
    for (; at && *at != ' ' && count < 32; at++)
        if (strchr("0123456789abcdef", *at))
            digits[count++] = *at;
    if (count < 32 || sscanf(digits, "%8x%8x", &index, &number) != 2 || index >= MAX_CALLS)
        return NULL;
    struct call *call = &calls[index];
    return call->state == TALKING && call->number == number && !call->agent ? call : NULL;
}

/* Answer the request; return its length, 0 when it is not complete, -1 to close. */
static long open_agent(struct agent *agent)
{
    char answer[256];
    const uint8_t *end = memmem(agent->in, agent->have, "\r\n\r\n", 4);
    if (!end)
        return agent->have < AGENT_BUFFER - 1 ? 0 : -1;
    const long used = end - agent->in + 4;
    agent->in[used - 1] = 0;
    const int size = ws_answer((char *)agent->in, answer, sizeof answer);
    agent->call = call_of((char *)agent->in);
    /* A caller that has left meanwhile is no error; the target will notice, too. */
    if (!size || !agent->call || !link_write(&agent->link, answer, (size_t)size))
        return -1;
    agent->call->agent = agent;
    agent->number = agent->call->number;
    agent->echo_from = now_ns() + echo_after_ns;
    agent->is_open = 1;
    return used;
}

/* Send the samples back as Pipecat sends them. */
static int echo(struct agent *agent, const uint8_t *pcm, size_t pcm_size)
{
    uint8_t message[WS_MAX_HEADER + PB_MAX_HEAD + 640 + PB_TAIL], head[PB_MAX_HEAD];
    const size_t head_size = pb_put_head(head, ++agent->next_id, pcm_size);
    const size_t size = head_size + pcm_size + PB_TAIL;
    uint8_t *at = message + ws_header_size(size, 0);
    ws_put_header(message, WS_BINARY, size, NULL);
    memcpy(at, head, head_size);
    memcpy(at + head_size, pcm, pcm_size);
    pb_put_tail(at + head_size + pcm_size);
    COUNT(agent_sent, 1);
    return link_write(&agent->link, message, (size_t)(at - message) + size);
}

/* 0 closes the connection. */
static int take_agent_audio(struct agent *agent, const uint8_t *pcm, int64_t now)
{
    struct call *call = agent->call;
    const int stamp = stamp_read(pcm, 2, filters, call->number);
    const int64_t number = stamp < 0 ? -1 : whole_number(call, stamp);
    COUNT(agent_received, 1);
    COUNT(agent_silent, stamp == STAMP_SILENT);
    COUNT(agent_undecoded, stamp == STAMP_BAD || (stamp >= 0 && number < 0));
    if (number >= 0) {
        if (is_measured(call, number))
            histogram_add(&uplink, now - call->sent_at[number % STAMP_WRAP]);
        call->agent_newest = number;
        call->echoed_at[number % STAMP_WRAP] = now_ns();
    }
    if (!wants_echo) {
        call_is_up(call, now);
        return 1;
    }
    return now < agent->echo_from || echo(agent, pcm, 640);
}

static int take_agent_frame(struct agent *agent, const struct ws_frame *frame, int64_t now)
{
    uint8_t answer[WS_MAX_HEADER + 125];
    const uint8_t *pcm;
    size_t size;
    uint64_t rate_hz;
    if (frame->opcode == WS_BINARY && frame->fin &&
        pb_find_audio(frame->payload, frame->size, &pcm, &size, &rate_hz) && size == 640 &&
        rate_hz == 16000)
        return agent->call->state != TALKING || take_agent_audio(agent, pcm, now);
    if (frame->opcode == WS_PING || frame->opcode == WS_CLOSE) {
        const size_t answered = frame->size < 125 ? frame->size : 125;
        ws_put_header(answer, frame->opcode == WS_PING ? WS_PONG : WS_CLOSE, answered, NULL);
        memcpy(answer + 2, frame->payload, answered);
        return link_write(&agent->link, answer, 2 + answered) && frame->opcode == WS_PING;
    }
    COUNT(agent_other, frame->opcode != WS_PONG);
    return 1;
}

/* 0 closes the connection. */
static int take_agent_bytes(struct agent *agent, int64_t now)
{
    struct ws_frame frame;
    size_t at = 0;
    long used = 0;
    if (!agent->is_open) {
        if ((used = open_agent(agent)) <= 0)
            return used == 0;
        at = (size_t)used;
    }
    while ((used = ws_parse(agent->in + at, agent->have - at, AGENT_BUFFER, &frame)) > 0) {
        if (!take_agent_frame(agent, &frame, now))
            return 0;
        at += (size_t)used;
    }
    agent->have -= at;
    if (at && agent->have)
        memmove(agent->in, agent->in + at, agent->have);
    return used == 0;
}

static void agent_readable(struct agent *agent)
{
    ssize_t got;
    int is_good = 1;
    do {
        got = link_read(&agent->link, agent->in + agent->have, AGENT_BUFFER - agent->have);
        if (got > 0) {
            agent->have += (size_t)got;
            is_good = take_agent_bytes(agent, now_ns());
        }
#ifdef BENCH_TLS
    } while (is_good && got > 0 && agent->link.tls); /* what is decrypted makes no event */
#else
    } while (0);
#endif
    if (is_good && (got > 0 || (got < 0 && errno == EAGAIN)))
        return;
    struct call *call = agent->call;
    close_agent(agent);
    if (call && call->state == TALKING)
        fail(call, "the target closed the agent's WebSocket");
}

#endif
