/* The generator's clock and sockets, all non-blocking; TLS where it was built with OpenSSL. */
#ifndef BENCH_NET_H
#define BENCH_NET_H

#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>
#ifdef BENCH_TLS
#include <openssl/err.h>
#include <openssl/ssl.h>
#endif

#define NS_PER_MS 1000000LL
#define NS_PER_S 1000000000LL

static inline int64_t now_ns(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return now.tv_sec * NS_PER_S + now.tv_nsec;
}

static inline void sleep_until(int64_t at_ns)
{
    const struct timespec at = {at_ns / NS_PER_S, at_ns % NS_PER_S};
    clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, &at, NULL);
}

static inline __attribute__((noreturn)) void die(const char *program, const char *what)
{
    fprintf(stderr, "%s: %s: %s\n", program, what, strerror(errno));
    exit(1);
}

/* As many files as the system lets us have. */
static inline void raise_file_limit(void)
{
    struct rlimit limit;
    getrlimit(RLIMIT_NOFILE, &limit);
    limit.rlim_cur = limit.rlim_max;
    setrlimit(RLIMIT_NOFILE, &limit);
}

/* Parse HOST:PORT with an IPv4 address; return 0 when it is none. */
static inline int parse_address(const char *text, struct sockaddr_in *address)
{
    char host[64];
    const char *colon = strrchr(text, ':');
    if (!colon || (size_t)(colon - text) >= sizeof host)
        return 0;
    memcpy(host, text, (size_t)(colon - text));
    host[colon - text] = 0;
    memset(address, 0, sizeof *address);
    address->sin_family = AF_INET;
    address->sin_port = htons((uint16_t)atoi(colon + 1));
    return inet_pton(AF_INET, host, &address->sin_addr) == 1;
}

static inline void set_no_delay(int fd)
{
    const int on = 1;
    setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
}

/* Listen on 127.0.0.1; port 0 takes a free one. Return the socket, or -1. */
static inline int listen_on(int port, int *taken)
{
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_port = htons((uint16_t)port)};
    socklen_t size = sizeof address;
    const int fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    const int on = 1;
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on);
    if (fd < 0 || bind(fd, (struct sockaddr *)&address, sizeof address) || listen(fd, 4096))
        return -1;
    getsockname(fd, (struct sockaddr *)&address, &size);
    *taken = ntohs(address.sin_port);
    return fd;
}

/* Begin to connect; the socket is writable once it has. Return it, or -1. */
static inline int connect_to(const struct sockaddr_in *address)
{
    const int fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    if (fd < 0)
        return -1;
    set_no_delay(fd);
    if (connect(fd, (const struct sockaddr *)address, sizeof *address) && errno != EINPROGRESS) {
        close(fd);
        return -1;
    }
    return fd;
}

static inline void watch(int epoll, int op, int fd, uint32_t events, uint64_t tag)
{
    struct epoll_event event = {.events = events, .data.u64 = tag};
    epoll_ctl(epoll, op, fd, &event);
}

/* A connection that may be behind TLS. */
struct link {
    int fd;
#ifdef BENCH_TLS
    SSL *tls;
#endif
};

/* As recv: what came, 0 at the end, -1 with EAGAIN when there is nothing now. */
static inline ssize_t link_read(struct link *link, void *at, size_t room)
{
#ifdef BENCH_TLS
    if (link->tls) {
        ERR_clear_error();
        const int got = SSL_read(link->tls, at, (int)room); /* does the handshake first */
        if (got > 0)
            return got;
        const int why = SSL_get_error(link->tls, got);
        errno = why == SSL_ERROR_WANT_READ || why == SSL_ERROR_WANT_WRITE ? EAGAIN : EPROTO;
        return why == SSL_ERROR_ZERO_RETURN ? 0 : -1;
    }
#endif
    return recv(link->fd, at, room, MSG_DONTWAIT);
}

/* Whether the whole was taken. */
static inline int link_write(struct link *link, const void *data, size_t size)
{
#ifdef BENCH_TLS
    if (link->tls)
        return SSL_write(link->tls, data, (int)size) == (int)size;
#endif
    return send(link->fd, data, size, MSG_DONTWAIT | MSG_NOSIGNAL) == (ssize_t)size;
}

static inline void link_close(struct link *link)
{
#ifdef BENCH_TLS
    if (link->tls) {
        SSL_shutdown(link->tls);
        SSL_free(link->tls);
        link->tls = NULL;
    }
#endif
    close(link->fd);
    link->fd = -1;
}

#endif
