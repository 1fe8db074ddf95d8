/* One call of the generator and both its ends: the caller that sends a stamped frame every 20 ms,
 * and the agent that echoes what arrives. What was seen is counted here, on one clock.
 *
 *   relay   caller (AudioSocket) -> target -> agent (WebSocket server) -> target -> caller
 *   local   caller (AudioSocket) -> target, which echoes
 *   ws      caller (WebSocket client, 16 kHz) -> target, which is an agent and echoes
 */
#ifndef BENCH_CALL_H
#define BENCH_CALL_H

#include "histogram.h"
#include "net.h"
#include "stamp.h"
#include "wire.h"

#define PTIME_NS (20 * NS_PER_MS)
#define MAX_CALLS 4096
#define CALLER_BUFFER 16384
#define AGENT_BUFFER 16384
#define REASONS_SHOWN 5

/* With a steady load the echo begins so long after the WebSocket opened. What the target held while
 * it connected comes in one burst; echoed, it would fill the playout for the whole run, and no
 * lateness would ever be heard as an underrun. */
#define ECHO_AFTER_NS (500 * NS_PER_MS)

enum route { RELAY, LOCAL, WS };
enum { LISTENER, CALLER, AGENT }; /* what an epoll tag names */

/* A call is IDLE, CONNECTING, TALKING, then over: LEAVING until its agent is gone, or FAILED. */
enum state { IDLE, CONNECTING, TALKING, LEAVING, FAILED };

/* Seen at the caller unless the name says agent. */
#define COUNTERS(X)                                                                              \
    X(sent) X(agent_received) X(agent_silent) X(agent_undecoded) X(agent_sent) X(agent_other)    \
    X(messages) X(received) X(leading_silence) X(undecoded) X(lost) X(duplicates) X(reordered)   \
    X(underruns) X(underrun_frames) X(missing) X(gaps_over_40_ms) X(wrong_messages)

#define COUNTER_FIELD(name) uint64_t name;
struct counters {
    COUNTERS(COUNTER_FIELD)
};

struct agent;

struct call {
    enum state state;
    unsigned number;       /* of all calls ever; in the UUID and in the stamps */
    struct link caller;
    int is_open;           /* the caller's WebSocket, with the route ws */
    struct agent *agent;
    int64_t started_at, up_at, leave_at;
    int64_t sent;          /* frames; the newest is number sent - 1 */
    int64_t newest;        /* frame that came back; -1 before the first */
    int64_t agent_newest;  /* the same at the agent */
    int64_t window_first, window_end; /* frames that are measured */
    int64_t message_at;    /* when the last message came; 0 before the first */
    int64_t first_message_at; /* in the window */
    int64_t window_messages, window_missing;
    int64_t quiet;         /* silent frames since the last one with a stamp */
    int64_t sent_at[STAMP_WRAP], echoed_at[STAMP_WRAP], seen[STAMP_WRAP];
    size_t have;
    uint8_t in[CALLER_BUFFER];
};

struct agent {
    struct link link;
    int index;
    int is_open;
    struct call *call;
    unsigned number; /* the call's, when the WebSocket opened */
    uint64_t next_id;
    int64_t echo_from;
    size_t have;
    uint8_t in[AGENT_BUFFER];
};

static enum route route = RELAY;
static int wants_echo = 1;
static int64_t echo_after_ns = ECHO_AFTER_NS;
static int filters = 1; /* that the target puts on each way */
static struct sockaddr_in target;
static const char *target_text;
static int epoll;
static struct call *calls;
static int64_t *due; /* of each call's next frame; INT64_MAX when it sends none */
static struct agent *agents[MAX_CALLS];
static int measuring;
static int is_disturbed; /* by a standstill of the machine, see standstill.h */
static struct counters total, window, disturbed;
static unsigned failed;
static struct histogram lateness, uplink, downlink, round_trip, jitter, first_echo;
#ifdef BENCH_TLS
static SSL_CTX *tls;
#endif

#define COUNT(name, n)                                                                           \
    (total.name += (n), window.name += measuring && !is_disturbed ? (n) : 0,                     \
     disturbed.name += measuring && is_disturbed ? (n) : 0)

static uint64_t tag(int kind, int index)
{
    return (uint64_t)kind << 32 | (uint32_t)index;
}

static int index_of(const struct call *call)
{
    return (int)(call - calls);
}

static void close_caller(struct call *call)
{
    if (call->caller.fd >= 0)
        link_close(&call->caller);
    due[index_of(call)] = INT64_MAX;
}

static void close_agent(struct agent *agent)
{
    if (agent->call)
        agent->call->agent = NULL;
    link_close(&agent->link);
    agents[agent->index] = NULL;
    free(agent);
}

/* At once, whatever the target thinks. */
static void close_both(struct call *call)
{
    close_caller(call);
    if (call->agent)
        close_agent(call->agent);
}

static void fail(struct call *call, const char *reason)
{
    if (call->state != CONNECTING && call->state != TALKING)
        return;
    if (failed++ < REASONS_SHOWN)
        fprintf(stderr, "load: call %u failed: %s\n", call->number, reason);
    close_both(call);
    call->state = FAILED;
}

/* The caller hangs up, as Asterisk does: it closes. What is still unread would make a reset of a
 * close(), so only our side is closed, and the rest when the target has closed its own. */
static void leave(struct call *call)
{
    if (call->state != TALKING)
        return;
    due[index_of(call)] = INT64_MAX;
    shutdown(call->caller.fd, SHUT_WR);
    call->state = LEAVING;
    call->leave_at = now_ns();
}

static void caller_leaves(struct call *call)
{
    const ssize_t got = link_read(&call->caller, call->in, CALLER_BUFFER);
    if (got == 0 || (got < 0 && errno != EAGAIN))
        close_caller(call);
}

/* Whether the target still keeps a connection of a call that has left. */
static int is_lingering(const struct call *call)
{
    return call->state == LEAVING && (call->caller.fd >= 0 || call->agent);
}

/* Whether a call got what it came for: its first echo, or without echo, its agent. */
static void call_is_up(struct call *call, int64_t now)
{
    if (call->up_at)
        return;
    call->up_at = now;
    histogram_add(&first_echo, now - call->started_at);
}

static void start_call(struct call *call, unsigned number, int64_t now)
{
    memset(call, 0, offsetof(struct call, in));
    call->number = number;
    call->state = CONNECTING;
    call->started_at = now;
    call->newest = call->agent_newest = -1;
    call->window_first = call->window_end = INT64_MAX;
    call->caller.fd = connect_to(&target);
    if (call->caller.fd < 0)
        fail(call, strerror(errno));
    else
        watch(epoll, EPOLL_CTL_ADD, call->caller.fd, EPOLLOUT, tag(CALLER, index_of(call)));
}

/* Send the UUID or ask for the WebSocket. The golden ratio spreads the calls over the 20 ms,
 * however many there are. */
static void caller_connected(struct call *call, int64_t now)
{
    uint8_t message[AS_HEADER + 16] = {0};
    char request[512];
    const uint8_t *data = message;
    size_t size = sizeof message;
    int error = 0;
    socklen_t error_size = sizeof error;
    getsockopt(call->caller.fd, SOL_SOCKET, SO_ERROR, &error, &error_size);
    if (error) {
        fail(call, strerror(error));
        return;
    }
    watch(epoll, EPOLL_CTL_MOD, call->caller.fd, EPOLLIN, tag(CALLER, index_of(call)));
    if (route == WS) {
        data = (uint8_t *)request;
        size = (size_t)ws_request(request, sizeof request, target_text, "/");
    } else {
        const uint32_t fields[4] = {htonl((uint32_t)index_of(call)), htonl(call->number),
                                    htonl(0xbe4c0000), htonl((uint32_t)getpid())};
        as_put_header(message, AS_UUID, 16);
        memcpy(message + AS_HEADER, fields, 16);
    }
    call->state = TALKING;
    if (!link_write(&call->caller, data, size)) {
        fail(call, "the target took no first message");
        return;
    }
    const int64_t phase = (int64_t)((double)PTIME_NS * (call->number * 0.6180339887498949 -
                                                        (int64_t)(call->number * 0.6180339887498949)));
    due[index_of(call)] = (now - phase + PTIME_NS - 1) / PTIME_NS * PTIME_NS + phase;
}

static void send_frame(struct call *call)
{
    enum { WIDE = 640, HEAD = 6 };
    uint8_t message[WS_MAX_HEADER + PB_MAX_HEAD + WIDE + PB_TAIL], *at = message;
    int16_t pcm[320];
    int64_t *const due_at = &due[index_of(call)];
    if (route == WS && !call->is_open) {
        *due_at += PTIME_NS;
        return;
    }
    stamp_write(pcm, route == WS ? 2 : 1, (unsigned)call->sent % STAMP_WRAP, call->number);
    if (route == WS) {
        const size_t size = HEAD + WIDE + PB_TAIL;
        const uint32_t mask = ws_next_mask();
        ws_put_header(at, WS_BINARY, size, &mask);
        at += ws_header_size(size, 1);
        pb_put_head(at, 0, WIDE);
        memcpy(at + HEAD, pcm, WIDE);
        pb_put_tail(at + HEAD + WIDE);
        ws_mask(at, size, mask);
        at += size;
    } else {
        as_put_header(at, AS_SLIN, AS_FRAME);
        memcpy(at + AS_HEADER, pcm, AS_FRAME);
        at += AS_HEADER + AS_FRAME;
    }
    const int64_t now = now_ns();
    call->sent_at[call->sent % STAMP_WRAP] = now;
    call->sent++;
    COUNT(sent, 1);
    if (measuring)
        histogram_add(&lateness, now - *due_at);
    *due_at += PTIME_NS;
    if (!link_write(&call->caller, message, (size_t)(at - message)))
        fail(call, "the target does not read");
}

/* Return the whole number of which a stamp has the low bits, not newer than what was sent. */
static int64_t whole_number(const struct call *call, int stamp)
{
    const int64_t newest = call->sent - 1;
    return newest - ((newest - stamp) & (STAMP_WRAP - 1));
}

static int is_measured(const struct call *call, int64_t number)
{
    return number >= call->window_first && number < call->window_end;
}

/* A frame came back to the caller. */
static void take_echo(struct call *call, const uint8_t *pcm, int scale, int64_t now)
{
    const int stamp = stamp_read(pcm, scale, route == RELAY ? 2 * filters : 0, call->number);
    const int64_t number = stamp < 0 ? -1 : whole_number(call, stamp);
    if (stamp == STAMP_SILENT) {
        call->quiet += call->newest >= 0;
        COUNT(leading_silence, call->newest < 0);
        return;
    }
    if (number < 0) {
        COUNT(undecoded, 1);
        return;
    }
    COUNT(received, 1);
    call_is_up(call, now);
    if (call->quiet) { /* and now it goes on: it was inside the stream */
        COUNT(underruns, 1);
        COUNT(underrun_frames, (uint64_t)call->quiet);
        call->quiet = 0;
    }
    int64_t *const seen = &call->seen[number % STAMP_WRAP];
    if (*seen == number + 1) {
        COUNT(duplicates, 1);
        return;
    }
    *seen = number + 1;
    if (number < call->newest) {
        COUNT(reordered, 1);
        COUNT(lost, (uint64_t)-1); /* it was counted as such */
        return;
    }
    if (call->newest >= 0)
        COUNT(lost, (uint64_t)(number - call->newest - 1));
    call->newest = number;
    if (is_measured(call, number)) {
        histogram_add(&round_trip, now - call->sent_at[number % STAMP_WRAP]);
        if (route == RELAY)
            histogram_add(&downlink, now - call->echoed_at[number % STAMP_WRAP]);
    }
}

/* One message of whatever content came: how even do they come? */
static void note_message(struct call *call, int64_t now)
{
    COUNT(messages, 1);
    if (measuring && call->message_at) {
        const int64_t off = now - call->message_at - PTIME_NS;
        histogram_add(&jitter, off < 0 ? -off : off);
        COUNT(gaps_over_40_ms, off > PTIME_NS);
    }
    if (measuring && !call->window_messages++)
        call->first_message_at = now;
    call->message_at = now;
}

/* Count the messages that were due by now and did not come; on the way only what is sure, whatever
 * the jitter of the last one. An agent's may be of any size. */
static void count_missing(struct call *call, int is_over)
{
    if (!measuring || !call->window_messages || route == WS)
        return;
    const int64_t since = call->message_at - call->first_message_at;
    const int64_t wanted = is_over ? (since + PTIME_NS / 2) / PTIME_NS + 1 : since / PTIME_NS;
    const int64_t missing = wanted - call->window_messages;
    if (missing > call->window_missing) {
        COUNT(missing, (uint64_t)(missing - call->window_missing));
        call->window_missing = missing;
    }
}

static size_t take_audiosocket(struct call *call, int64_t now)
{
    size_t at = 0;
    while (call->state == TALKING && call->have - at >= AS_HEADER) {
        const uint8_t *message = call->in + at;
        const size_t size = (size_t)message[1] << 8 | message[2];
        if (message[0] == AS_HANGUP) {
            fail(call, "the target hung up");
            return 0;
        }
        if (size > CALLER_BUFFER - AS_HEADER) {
            fail(call, "the target sent a message of over 16 KiB");
            return 0;
        }
        if (call->have - at < AS_HEADER + size)
            break;
        at += AS_HEADER + size;
        if (message[0] != AS_SLIN || size != AS_FRAME) {
            COUNT(wrong_messages, 1);
            continue;
        }
        note_message(call, now);
        take_echo(call, message + AS_HEADER, 1, now);
    }
    return at;
}

/* Return where the frames begin; 0 when the answer is not complete. */
static size_t take_ws_answer(struct call *call)
{
    const uint8_t *end = memmem(call->in, call->have, "\r\n\r\n", 4);
    if (!end)
        return 0;
    if (memcmp(call->in, "HTTP/1.1 101", 12)) {
        fail(call, "the agent refused the WebSocket");
        return 0;
    }
    call->is_open = 1;
    return (size_t)(end - call->in) + 4;
}

static void answer_ping(struct call *call, const struct ws_frame *ping)
{
    uint8_t pong[WS_MAX_HEADER + 125];
    const size_t size = ping->size < 125 ? ping->size : 125;
    const uint32_t mask = ws_next_mask();
    uint8_t *at = pong + ws_header_size(size, 1);
    ws_put_header(pong, WS_PONG, size, &mask);
    memcpy(at, ping->payload, size);
    ws_mask(at, size, mask);
    if (!link_write(&call->caller, pong, (size_t)(at - pong) + size))
        fail(call, "the agent does not read");
}

static size_t take_ws(struct call *call, int64_t now)
{
    struct ws_frame frame;
    const uint8_t *pcm;
    size_t at = call->is_open ? 0 : take_ws_answer(call), size;
    uint64_t rate_hz;
    while (call->is_open && call->state == TALKING) {
        const long used = ws_parse(call->in + at, call->have - at, CALLER_BUFFER, &frame);
        if (used <= 0) {
            if (used < 0)
                fail(call, "the agent sent a message of over 16 KiB");
            break;
        }
        at += (size_t)used;
        if (frame.opcode == WS_CLOSE)
            fail(call, "the agent closed the WebSocket");
        if (frame.opcode == WS_PING)
            answer_ping(call, &frame);
        if (frame.opcode != WS_BINARY ||
            !pb_find_audio(frame.payload, frame.size, &pcm, &size, &rate_hz))
            continue;
        if (rate_hz != 16000 || size % 640)
            COUNT(wrong_messages, 1);
        note_message(call, now);
        for (size_t i = 0; i + 640 <= size; i += 640)
            take_echo(call, pcm + i, 2, now);
    }
    return at;
}

static void caller_readable(struct call *call)
{
    const ssize_t got = link_read(&call->caller, call->in + call->have, CALLER_BUFFER - call->have);
    const int64_t now = now_ns();
    if (got <= 0) {
        if (got == 0 || errno != EAGAIN)
            fail(call, got ? strerror(errno) : "the target closed the connection");
        return;
    }
    call->have += (size_t)got;
    const size_t used = route == WS ? take_ws(call, now) : take_audiosocket(call, now);
    call->have -= used;
    if (used && call->have)
        memmove(call->in, call->in + used, call->have);
}

#endif
