/* The floor: what no relay of this path can do without. For each call one AudioSocket in and one
 * WebSocket out; in 20 ms two reads and two writes, two FIRs, two protobuf frames, one mask.
 *
 * One thread, one epoll. No pacing, no queue, no log, no reconnecting: a relay that one can use
 * must do more. The filters are mediad's own kernel and taps; fir_taps.h is written by build.py.
 *
 *   floor --agent HOST:PORT [--port N] [--grid US]
 *
 * It wakes up for what comes; with a grid at most so often, and takes all that has come by then.
 */
#define _GNU_SOURCE
#include <getopt.h>

#include "_fir.h"
#include "fir_taps.h"
#include "net.h"
#include "wire.h"

#define MAX_CALLS 4096
#define IN_SAMPLES 160  /* 20 ms of 8 kHz */
#define OUT_SAMPLES 320 /* of 16 kHz */
#define BUFFER 4096
#define MAX_EVENTS 256

enum { LISTENER, CALLER, AGENT };

struct call {
    int caller, agent; /* -1 when closed */
    int is_open;       /* the WebSocket */
    size_t caller_have, agent_have;
    uint8_t caller_in[BUFFER], agent_in[BUFFER];
    int16_t up[UP_ROW - 1 + IN_SAMPLES], down[DOWN_ROW - 1 + OUT_SAMPLES]; /* the past first */
};

static const fir_bank up_bank = {up_taps, UP_UP, UP_DOWN, UP_ROW};
static const fir_bank down_bank = {down_taps, DOWN_UP, DOWN_DOWN, DOWN_ROW};
static struct call *calls[MAX_CALLS];
static struct sockaddr_in agent_address;
static const char *agent_host;
static int epoll;

static uint64_t tag(int kind, int index)
{
    return (uint64_t)kind << 32 | (uint32_t)index;
}

static void end_call(int index)
{
    struct call *call = calls[index];
    if (call->agent >= 0)
        close(call->agent);
    close(call->caller);
    free(call);
    calls[index] = NULL;
}

/* Return whether it went out whole; on loopback it does, or the peer is gone. */
static int write_whole(int fd, const uint8_t *data, size_t size)
{
    return send(fd, data, size, MSG_DONTWAIT | MSG_NOSIGNAL) == (ssize_t)size;
}

static int send_to_agent(struct call *call, const uint8_t *pcm)
{
    enum { PAST = UP_ROW - 1, SIZE = 2 * OUT_SAMPLES };
    uint8_t message[WS_MAX_HEADER + PB_MAX_HEAD + SIZE + PB_TAIL];
    uint8_t head[PB_MAX_HEAD];
    const size_t head_size = pb_put_head(head, 0, SIZE);
    const size_t size = head_size + SIZE + PB_TAIL;
    uint8_t *at = message + ws_header_size(size, 1);
    const uint32_t mask = ws_next_mask();

    memcpy(call->up + PAST, pcm, 2 * IN_SAMPLES);
    ws_put_header(message, WS_BINARY, size, &mask);
    memcpy(at, head, head_size);
    fir_run(&up_bank, call->up, IN_SAMPLES, 0, OUT_SAMPLES, (fir_sample *)(at + head_size));
    pb_put_tail(at + head_size + SIZE);
    ws_mask(at, size, mask);
    memmove(call->up, call->up + IN_SAMPLES, 2 * PAST);
    return write_whole(call->agent, message, (size_t)(at - message) + size);
}

static int send_to_caller(struct call *call, const uint8_t *pcm)
{
    enum { PAST = DOWN_ROW - 1 };
    uint8_t message[AS_HEADER + AS_FRAME];
    memcpy(call->down + PAST, pcm, 2 * OUT_SAMPLES);
    as_put_header(message, AS_SLIN, AS_FRAME);
    fir_run(&down_bank, call->down, OUT_SAMPLES, 0, IN_SAMPLES, (fir_sample *)(message + AS_HEADER));
    memmove(call->down, call->down + OUT_SAMPLES, 2 * PAST);
    return write_whole(call->caller, message, sizeof message);
}

static int dial_agent(int index, const uint8_t *uuid)
{
    struct call *call = calls[index];
    char path[40] = "/", request[512];
    for (int i = 0; i < 16; i++)
        sprintf(path + strlen(path), "%02x%s", uuid[i], i == 3 || i == 5 || i == 7 || i == 9 ? "-" : "");
    call->agent = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    /* On loopback this does not wait: the kernel answers for the agent. */
    if (call->agent < 0 ||
        connect(call->agent, (struct sockaddr *)&agent_address, sizeof agent_address))
        return 0;
    set_no_delay(call->agent);
    watch(epoll, EPOLL_CTL_ADD, call->agent, EPOLLIN, tag(AGENT, index));
    const int size = ws_request(request, sizeof request, agent_host, path);
    return write_whole(call->agent, (uint8_t *)request, (size_t)size);
}

/* What the caller sent; 0 ends the call. Audio before the WebSocket is open is dropped. */
static int read_caller(int index)
{
    struct call *call = calls[index];
    const ssize_t got = recv(call->caller, call->caller_in + call->caller_have,
                             BUFFER - call->caller_have, MSG_DONTWAIT);
    if (got <= 0)
        return got < 0 && errno == EAGAIN;
    const uint8_t *at = call->caller_in, *end = at + call->caller_have + got;
    while (end - at >= AS_HEADER) {
        const size_t size = (size_t)at[1] << 8 | at[2];
        if (size > BUFFER - AS_HEADER)
            return 0;
        if ((size_t)(end - at) < AS_HEADER + size)
            break;
        if (at[0] == AS_UUID && size == 16 && call->agent < 0) {
            if (!dial_agent(index, at + AS_HEADER))
                return 0;
        } else if (at[0] != AS_SLIN || size != AS_FRAME) {
            return 0; /* the bench sends nothing else */
        } else if (call->is_open && !send_to_agent(call, at + AS_HEADER)) {
            return 0;
        }
        at += AS_HEADER + size;
    }
    call->caller_have = (size_t)(end - at);
    if (call->caller_have)
        memmove(call->caller_in, at, call->caller_have);
    return 1;
}

static int take_frame(struct call *call, const struct ws_frame *frame)
{
    const uint8_t *pcm;
    size_t size;
    uint64_t rate_hz;
    if (frame->opcode != WS_BINARY ||
        !pb_find_audio(frame->payload, frame->size, &pcm, &size, &rate_hz))
        return frame->opcode != WS_CLOSE;
    return rate_hz == 16000 && size == 2 * OUT_SAMPLES && send_to_caller(call, pcm);
}

/* What the agent sent; 0 ends the call. */
static int read_agent(struct call *call)
{
    const ssize_t got = recv(call->agent, call->agent_in + call->agent_have,
                             BUFFER - call->agent_have, MSG_DONTWAIT);
    if (got <= 0)
        return got < 0 && errno == EAGAIN;
    call->agent_have += (size_t)got;
    size_t at = 0;
    if (!call->is_open) {
        const uint8_t *end = memmem(call->agent_in, call->agent_have, "\r\n\r\n", 4);
        if (!end)
            return call->agent_have < BUFFER;
        if (memcmp(call->agent_in, "HTTP/1.1 101", 12))
            return 0;
        call->is_open = 1;
        at = (size_t)(end - call->agent_in) + 4;
    }
    struct ws_frame frame;
    long size;
    while ((size = ws_parse(call->agent_in + at, call->agent_have - at, BUFFER, &frame)) > 0) {
        if (!take_frame(call, &frame))
            return 0;
        at += (size_t)size;
    }
    call->agent_have -= at;
    if (call->agent_have)
        memmove(call->agent_in, call->agent_in + at, call->agent_have);
    return size == 0;
}

static void accept_calls(int listener)
{
    static int next;
    int fd;
    while ((fd = accept4(listener, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC)) >= 0) {
        int tried = 0;
        while (calls[next] && tried++ < MAX_CALLS)
            next = (next + 1) % MAX_CALLS;
        if (calls[next] || !(calls[next] = calloc(1, sizeof **calls))) {
            close(fd);
            return;
        }
        set_no_delay(fd);
        calls[next]->caller = fd;
        calls[next]->agent = -1;
        watch(epoll, EPOLL_CTL_ADD, fd, EPOLLIN, tag(CALLER, next));
        next = (next + 1) % MAX_CALLS; /* so that no event of this round means another call */
    }
}

int main(int argc, char **argv)
{
    static const struct option options[] = {
        {"agent", 1, 0, 'a'}, {"port", 1, 0, 'p'}, {"grid", 1, 0, 'g'}, {0}};
    struct epoll_event events[MAX_EVENTS];
    int64_t grid_ns = 0, at = 0;
    int port = 0, option, listener, count = 0;
    while ((option = getopt_long(argc, argv, "", options, NULL)) != -1) {
        if (option == 'a' && parse_address(optarg, &agent_address))
            agent_host = optarg;
        else if (option == 'p')
            port = atoi(optarg);
        else if (option == 'g')
            grid_ns = atoi(optarg) * 1000;
        else
            agent_host = NULL, optind = argc;
    }
    if (!agent_host) {
        fprintf(stderr, "usage: floor --agent HOST:PORT [--port N] [--grid US]\n");
        return 2;
    }
    raise_file_limit();
    fir_choose();
    epoll = epoll_create1(EPOLL_CLOEXEC);
    if ((listener = listen_on(port, &port)) < 0)
        die("floor", "cannot listen");
    watch(epoll, EPOLL_CTL_ADD, listener, EPOLLIN, tag(LISTENER, 0));
    fprintf(stderr, "floor takes calls on 127.0.0.1:%d\n", port);
    for (;;) {
        if (grid_ns && count < MAX_EVENTS) {
            const int64_t now = now_ns();
            at = at + grid_ns > now ? at + grid_ns : now;
            sleep_until(at);
        }
        count = epoll_wait(epoll, events, MAX_EVENTS, grid_ns ? 0 : -1);
        for (int i = 0; i < count; i++) {
            const int kind = (int)(events[i].data.u64 >> 32), index = (int)events[i].data.u64;
            if (kind == LISTENER)
                accept_calls(listener);
            else if (calls[index] &&
                     !(kind == CALLER ? read_caller(index) : read_agent(calls[index])))
                end_call(index);
        }
    }
}
