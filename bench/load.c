/* The load generator: callers and the echoing agent in one process, on one clock.
 *
 *   load calls  a steady number of calls: delays, jitter, losses, CPU of the measured process
 *   load setup  so many new calls a second, each hung up soon after its first echo
 *   load local  as calls, for a server that echoes AudioSocket itself
 *   load ws     as calls, straight to an agent's WebSocket at 16 kHz
 *
 * It polls on a grid of 0.5 ms. A generator that sleeps until something comes makes each of its
 * sends wake the other core, and both sides dearer. What it measures goes to standard output as one
 * JSON object, durations in milliseconds. See call.h for what is counted.
 */
#define _GNU_SOURCE
#include <getopt.h>
#include <stddef.h>
#include <sys/prctl.h>

#include "agent.h"
#include "standstill.h"

#define UP_WAIT_NS (10 * NS_PER_S)   /* for a call's first echo */
#define GONE_WAIT_NS (5 * NS_PER_S)  /* for the target to leave the agent after a hang-up */
#define DRAIN_NS (500 * NS_PER_MS)   /* for what is on its way when the window ends */
#define LOOK_NS (10 * NS_PER_MS)     /* between looks at all calls */
#define SLACK_NS (20 * NS_PER_S)     /* over its plan; then it gives up */

static const char *mode = "";
static int wanted_calls = 100, rate = 100, agent_port, pid, core = -1, signals;
static long total_calls;
static int64_t seconds_ns = 10 * NS_PER_S, warm_ns = 3 * NS_PER_S, hold_ns = 500 * NS_PER_MS;
static int64_t grid_ns = NS_PER_MS / 2;
static int listener = -1;
static unsigned started, finished, left_open;

/* ---- What the system says of the measured process and its core ---- */

struct usage {
    int64_t at, own_cpu;
    double user_s, kernel_s; /* of the measured process */
    long rss_kib;
    double idle_s, steal_s;  /* of its core */
};

static void read_cpu(int of, struct usage *usage)
{
    char path[64], line[1024] = "";
    unsigned long user = 0, kernel = 0;
    snprintf(path, sizeof path, "/proc/%d/stat", of);
    FILE *file = fopen(path, "r");
    if (!file)
        return; /* it has died; the calls say so */
    const char *after = fgets(line, sizeof line, file) ? strrchr(line, ')') : NULL;
    if (after)
        sscanf(after + 1, " %*c %*d %*d %*d %*d %*d %*u %*u %*u %*u %*u %lu %lu", &user, &kernel);
    fclose(file);
    usage->user_s = (double)user / (double)sysconf(_SC_CLK_TCK);
    usage->kernel_s = (double)kernel / (double)sysconf(_SC_CLK_TCK);
}

static long read_rss_kib(int of)
{
    char path[64], line[256];
    long kib = 0;
    snprintf(path, sizeof path, "/proc/%d/status", of);
    FILE *file = fopen(path, "r");
    while (file && fgets(line, sizeof line, file))
        sscanf(line, "VmRSS: %ld", &kib);
    if (file)
        fclose(file);
    return kib;
}

/* What a core did is guessed at each clock tick, wrongly for what wakes up by the same clock; how
 * long it was idle is measured. */
static void read_core(struct usage *usage)
{
    char line[512], name[16];
    unsigned long long idle, wait, steal;
    FILE *file = fopen("/proc/stat", "r");
    snprintf(name, sizeof name, "cpu%d ", core);
    while (file && fgets(line, sizeof line, file)) {
        if (strncmp(line, name, strlen(name)) ||
            sscanf(line, "%*s %*u %*u %*u %llu %llu %*u %*u %llu", &idle, &wait, &steal) != 3)
            continue;
        usage->idle_s = (double)(idle + wait) / (double)sysconf(_SC_CLK_TCK);
        usage->steal_s = (double)steal / (double)sysconf(_SC_CLK_TCK);
    }
    if (file)
        fclose(file);
}

static struct usage read_usage(void)
{
    struct usage usage = {.at = now_ns()};
    struct timespec own;
    clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &own);
    usage.own_cpu = own.tv_sec * NS_PER_S + own.tv_nsec;
    if (pid) {
        read_cpu(pid, &usage);
        usage.rss_kib = read_rss_kib(pid);
    }
    if (core >= 0)
        read_core(&usage);
    return usage;
}

/* ---- The loop ---- */

static void handle_events(void)
{
    struct epoll_event events[512];
    int count;
    do {
        count = epoll_wait(epoll, events, 512, 0);
        for (int i = 0; i < count; i++) {
            const int kind = (int)(events[i].data.u64 >> 32), index = (int)events[i].data.u64;
            if (kind == LISTENER)
                accept_agents(listener);
            else if (kind == AGENT && agents[index])
                agent_readable(agents[index]);
            else if (kind == CALLER && calls[index].state == CONNECTING)
                caller_connected(&calls[index], now_ns());
            else if (kind == CALLER && calls[index].state == TALKING)
                caller_readable(&calls[index]);
            else if (kind == CALLER && calls[index].state == LEAVING)
                caller_leaves(&calls[index]);
        }
    } while (count == 512);
}

static void count_all_missing(int is_over)
{
    for (int i = 0; i < wanted_calls; i++)
        count_missing(&calls[i], is_over);
}

static void send_due(int64_t now)
{
    for (int i = 0; i < wanted_calls; i++)
        while (due[i] <= now)
            send_frame(&calls[i]);
}

/* One turn of the loop, at the next point of the grid. */
static int64_t turn(void)
{
    static int64_t at;
    const int64_t before = now_ns();
    at = at + grid_ns > before ? at + grid_ns : before; /* late: no turns to make up for */
    sleep_until(at);
    const int64_t now = now_ns();
    const int disturbs = look_for_standstill(now);
    if (disturbs != is_disturbed) {
        count_all_missing(0); /* those until now, under what was until now */
        is_disturbed = disturbs;
    }
    send_due(now);
    handle_events();
    return now;
}

static void run_until(int64_t until)
{
    while (turn() < until)
        ;
}

/* Whether to go through all calls now: not in every turn, that would cost more than the calls. */
static int is_time_to_look(int64_t now)
{
    static int64_t next;
    if (now < next)
        return 0;
    next = now + LOOK_NS;
    return 1;
}

/* Give calls up that wait in vain, and see off those that have left. */
static void look_after(int64_t now)
{
    for (int i = 0; i < wanted_calls; i++) {
        struct call *call = &calls[i];
        const int is_waiting = call->state == CONNECTING || call->state == TALKING;
        if (is_waiting && !call->up_at && now - call->started_at > UP_WAIT_NS)
            fail(call, call->agent ? "no echo within 10 s" : "no agent within 10 s");
        if (is_lingering(call) && now - call->leave_at > GONE_WAIT_NS) {
            left_open++;
            close_both(call);
        }
    }
}

static void hang_up_all(void)
{
    int lingering;
    for (int i = 0; i < wanted_calls; i++)
        leave(&calls[i]);
    do {
        run_until(now_ns() + LOOK_NS);
        look_after(now_ns());
        lingering = 0;
        for (int i = 0; i < wanted_calls; i++)
            lingering += is_lingering(&calls[i]);
    } while (lingering);
}

/* ---- calls, local, ws ---- */

static int count_up(void)
{
    int up = 0;
    for (int i = 0; i < wanted_calls; i++)
        up += calls[i].state == TALKING && calls[i].up_at;
    return up;
}

static void ramp_up(void)
{
    const int64_t begin = now_ns();
    for (;;) {
        const int64_t now = turn();
        while (started < (unsigned)wanted_calls && now - begin >= started * NS_PER_S / rate) {
            start_call(&calls[started], started, now);
            started++;
        }
        if (!is_time_to_look(now))
            continue;
        look_after(now);
        if (started == (unsigned)wanted_calls && count_up() + (int)failed >= wanted_calls)
            return;
    }
}

static void open_window(void)
{
    for (int i = 0; i < wanted_calls; i++)
        calls[i].window_first = calls[i].sent;
    measuring = 1;
}

static void close_window(void)
{
    count_all_missing(1);
    for (int i = 0; i < wanted_calls; i++)
        calls[i].window_end = calls[i].sent;
    measuring = 0;
}

/* What was sent in the window and is still not back. */
static void count_tail(void)
{
    for (int i = 0; i < wanted_calls; i++)
        if (calls[i].state == TALKING && wants_echo && calls[i].newest < calls[i].window_end - 1)
            window.lost += (uint64_t)(calls[i].window_end - 1 - calls[i].newest);
}

static void signal_target(int number)
{
    if (signals && pid)
        kill(pid, number);
}

static void run_steady(struct usage *before, struct usage *after)
{
    ramp_up();
    fprintf(stderr, "load: %d of %d calls are up\n", count_up(), wanted_calls);
    run_until(now_ns() + warm_ns);
    signal_target(SIGUSR1);
    open_window();
    *before = read_usage();
    run_until(before->at + seconds_ns);
    *after = read_usage();
    close_window();
    signal_target(SIGUSR2);
    run_until(now_ns() + DRAIN_NS);
    count_tail();
    hang_up_all();
}

/* ---- setup ---- */

static int free_slots[MAX_CALLS], free_count;

static void start_due_calls(int64_t begin, int64_t now)
{
    while (started < total_calls && free_count && now >= begin + started * NS_PER_S / rate) {
        histogram_add(&lateness, now - begin - started * NS_PER_S / rate);
        start_call(&calls[free_slots[--free_count]], started, now);
        started++;
    }
}

/* Hang calls up that have talked long enough, and free the slots of those that are over. */
static void end_calls(int64_t now)
{
    for (int i = 0; i < wanted_calls; i++) {
        struct call *call = &calls[i];
        if (call->state == TALKING && call->up_at && now - call->up_at >= hold_ns)
            leave(call);
        if ((call->state == LEAVING && !is_lingering(call)) || call->state == FAILED) {
            finished++;
            call->state = IDLE;
            free_slots[free_count++] = i;
        }
    }
}

static void run_setup(struct usage *before, struct usage *after)
{
    const int64_t begin = now_ns();
    const int64_t limit = begin + total_calls * NS_PER_S / rate + SLACK_NS;
    int64_t now = begin;
    for (int i = wanted_calls; i > 0; i--)
        free_slots[free_count++] = i - 1;
    *before = read_usage();
    while (finished < total_calls && now < limit) {
        now = turn();
        start_due_calls(begin, now);
        if (is_time_to_look(now)) {
            look_after(now);
            end_calls(now);
        }
    }
    *after = read_usage();
    hang_up_all();
}

/* ---- The report ---- */

#define PRINT_COUNTER(name)                                                                      \
    printf("%s\"" #name "\": %lld", comma, (long long)of->name), comma = ", ";

static void print_counters(const char *title, const struct counters *of)
{
    const char *comma = "";
    printf(",\n \"%s\": {", title);
    COUNTERS(PRINT_COUNTER)
    printf("}");
}

static void report(const struct usage *before, const struct usage *after)
{
    const double span_s = (double)(after->at - before->at) / 1e9;
    const double user_s = after->user_s - before->user_s;
    const double cpu_s = user_s + after->kernel_s - before->kernel_s;
    const double steal_s = after->steal_s - before->steal_s;
    const double others_s = span_s - (after->idle_s - before->idle_s) - steal_s - cpu_s;
    printf("{\"mode\": \"%s\", \"calls\": %d, \"seconds\": %.3f", mode, wanted_calls, span_s);
    printf(",\n \"started\": %u, \"finished\": %u, \"failed\": %u, \"left_open\": %u", started,
           finished, failed, left_open);
    printf(",\n \"cpu_s\": %.2f, \"cpu_user_s\": %.2f, \"cpu_of_core\": %.4f", cpu_s, user_s,
           cpu_s / span_s);
    printf(", \"cpu_ms_per_call_s\": %.4f", 1e3 * cpu_s / span_s / wanted_calls);
    printf(",\n \"rss_before_kib\": %ld, \"rss_kib\": %ld", before->rss_kib, after->rss_kib);
    printf(",\n \"others_of_core\": %.4f, \"steal_of_core\": %.4f",
           core < 0 || others_s < 0 ? 0 : others_s / span_s, steal_s / span_s);
    printf(",\n \"generator_of_core\": %.4f",
           (double)(after->own_cpu - before->own_cpu) / 1e9 / span_s);
    printf(",\n \"standstills\": %u, \"standstill_ms\": %.3f", standstills,
           (double)longest_still_ns / 1e6);
    print_counters("window", &window);
    print_counters("disturbed", &disturbed);
    print_counters("total", &total);
    histogram_print("lateness_ms", &lateness);
    histogram_print("uplink_ms", &uplink);
    histogram_print("downlink_ms", &downlink);
    histogram_print("round_trip_ms", &round_trip);
    histogram_print("jitter_ms", &jitter);
    histogram_print("first_echo_ms", &first_echo);
    printf("}\n");
}

/* ---- Options ---- */

static _Noreturn void usage_error(const char *what)
{
    fprintf(stderr, "load: %s\n"
            "usage: load calls|setup|local|ws --target HOST:PORT [--agent-port N] [--calls N]\n"
            "            [--seconds S] [--warm S] [--rate N] [--total N] [--hold MS] [--grid US]\n"
            "            [--filters 0|1] [--no-echo] [--pid PID [--core N] [--signals]]\n"
            "            [--tls-cert FILE --tls-key FILE]\n", what);
    exit(2);
}

static void use_tls(const char *certificate, const char *key)
{
#ifdef BENCH_TLS
    tls = SSL_CTX_new(TLS_server_method());
    SSL_CTX_set_mode(tls, SSL_MODE_ACCEPT_MOVING_WRITE_BUFFER);
    if (SSL_CTX_use_certificate_chain_file(tls, certificate) != 1 ||
        SSL_CTX_use_PrivateKey_file(tls, key, SSL_FILETYPE_PEM) != 1)
        usage_error("the certificate or its key cannot be read");
#else
    (void)certificate, (void)key;
    usage_error("built without OpenSSL");
#endif
}

static void parse_options(int argc, char **argv)
{
    enum { TARGET, AGENT_PORT, CALLS, SECONDS, WARM, RATE, TOTAL, HOLD, GRID, FILTERS, NO_ECHO,
           PID, CORE, SIGNALS, TLS_CERT, TLS_KEY };
    static const struct option options[] = {
        {"target", 1, 0, TARGET}, {"agent-port", 1, 0, AGENT_PORT}, {"calls", 1, 0, CALLS},
        {"seconds", 1, 0, SECONDS}, {"warm", 1, 0, WARM}, {"rate", 1, 0, RATE},
        {"total", 1, 0, TOTAL}, {"hold", 1, 0, HOLD}, {"grid", 1, 0, GRID},
        {"filters", 1, 0, FILTERS}, {"no-echo", 0, 0, NO_ECHO}, {"pid", 1, 0, PID},
        {"core", 1, 0, CORE}, {"signals", 0, 0, SIGNALS}, {"tls-cert", 1, 0, TLS_CERT}, {"tls-key", 1, 0, TLS_KEY}, {0}};
    const char *certificate = NULL, *key = NULL;
    int option;
    while ((option = getopt_long(argc, argv, "", options, NULL)) != -1) {
        switch (option) {
        case TARGET:
            if (!parse_address(optarg, &target))
                usage_error("--target is no IPv4 address and port");
            target_text = optarg;
            break;
        case AGENT_PORT: agent_port = atoi(optarg); break;
        case CALLS: wanted_calls = atoi(optarg); break;
        case SECONDS: seconds_ns = (int64_t)(atof(optarg) * 1e9); break;
        case WARM: warm_ns = (int64_t)(atof(optarg) * 1e9); break;
        case RATE: rate = atoi(optarg); break;
        case TOTAL: total_calls = atol(optarg); break;
        case HOLD: hold_ns = atoi(optarg) * NS_PER_MS; break;
        case GRID: grid_ns = atoi(optarg) * 1000; break;
        case FILTERS: filters = atoi(optarg); break;
        case NO_ECHO: wants_echo = 0; break;
        case PID: pid = atoi(optarg); break;
        case CORE: core = atoi(optarg); break;
        case SIGNALS: signals = 1; break; /* SIGUSR1 and SIGUSR2 around the window */
        case TLS_CERT: certificate = optarg; break;
        case TLS_KEY: key = optarg; break;
        default: usage_error("no such option");
        }
    }
    mode = optind < argc ? argv[optind] : "";
    if (strcmp(mode, "calls") && strcmp(mode, "setup") && strcmp(mode, "local") && strcmp(mode, "ws"))
        usage_error("the mode is calls, setup, local or ws");
    if (!target_text)
        usage_error("--target is missing");
    if (wanted_calls < 1 || wanted_calls > MAX_CALLS || rate < 1 || grid_ns < 1)
        usage_error("--calls (at most 4096), --rate and --grid are positive numbers");
    if (certificate && key)
        use_tls(certificate, key);
}

int main(int argc, char **argv)
{
    struct usage before, after;
    parse_options(argc, argv);
    route = !strcmp(mode, "local") ? LOCAL : !strcmp(mode, "ws") ? WS : RELAY;
    const int is_setup = !strcmp(mode, "setup");
    if (is_setup) {
        echo_after_ns = 0;
        if (!total_calls)
            total_calls = rate * (seconds_ns / NS_PER_S);
        wanted_calls = rate * 4 + 64 < MAX_CALLS ? rate * 4 + 64 : MAX_CALLS; /* slots */
    }
    signal(SIGPIPE, SIG_IGN);
    raise_file_limit();
    prctl(PR_SET_TIMERSLACK, 1UL); /* ns; else each turn sleeps 50 µs longer */
    epoll = epoll_create1(EPOLL_CLOEXEC);
    calls = calloc((size_t)wanted_calls, sizeof *calls);
    due = malloc((size_t)wanted_calls * sizeof *due);
    if (!calls || !due)
        die("load", "no memory");
    for (int i = 0; i < wanted_calls; i++)
        due[i] = INT64_MAX;
    if (route == RELAY) {
        if ((listener = listen_on(agent_port, &agent_port)) < 0)
            die("load", "the agent cannot listen");
        watch(epoll, EPOLL_CTL_ADD, listener, EPOLLIN, tag(LISTENER, 0));
    }
    watch_measured_core(&core);
    is_setup ? run_setup(&before, &after) : run_steady(&before, &after);
    report(&before, &after);
    return 0;
}
