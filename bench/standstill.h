/* A machine stands still at times, a virtual one above all: then callers, agent and the measured
 * program do nothing for a while, and what is heard of it is nobody's doing. It is counted apart.
 *
 * The generator's core is seen by its own loop, the measured one by a thread that wants to run
 * there every 5 ms before everything else; without the privilege for that it is not watched.
 */
#ifndef BENCH_STANDSTILL_H
#define BENCH_STANDSTILL_H

#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>

#include "call.h"

#define STANDSTILL_NS (15 * NS_PER_MS)
#define AFTER_IT_NS (500 * NS_PER_MS) /* so long its traces may be heard */
#define WATCH_NS (5 * NS_PER_MS)
#define BEFORE_ALL 2 /* what is measured has priority 1 at most */

static unsigned standstills;    /* in the window, in which nothing else is counted here */
static int64_t longest_still_ns;
static int64_t still_until;     /* and its traces */
static _Atomic int64_t core_still_ns; /* told by the thread, taken by the loop */

static void *watch_core(void *argument)
{
    const int core = *(const int *)argument;
    const struct sched_param first = {.sched_priority = BEFORE_ALL};
    cpu_set_t cores;
    CPU_ZERO(&cores);
    CPU_SET(core, &cores);
    if (pthread_setaffinity_np(pthread_self(), sizeof cores, &cores) ||
        pthread_setschedparam(pthread_self(), SCHED_FIFO, &first))
        return NULL;
    for (;;) {
        const int64_t at = now_ns() + WATCH_NS;
        sleep_until(at);
        const int64_t late = now_ns() - at;
        if (late >= STANDSTILL_NS)
            atomic_store(&core_still_ns, late);
    }
}

static void watch_measured_core(const int *core)
{
    pthread_t thread;
    if (*core >= 0 && !pthread_create(&thread, NULL, watch_core, (void *)core))
        pthread_detach(thread);
}

/* Ask in every turn of the loop, before anything is counted: do traces of a standstill show? */
static int look_for_standstill(int64_t now)
{
    static int64_t turned_at;
    const int64_t here = turned_at ? now - turned_at : 0, there = atomic_exchange(&core_still_ns, 0);
    const int64_t still = here > there ? here : there;
    turned_at = now;
    if (measuring && still >= STANDSTILL_NS) {
        standstills++;
        longest_still_ns = still > longest_still_ns ? still : longest_still_ns;
        still_until = now + AFTER_IT_NS;
    }
    return now < still_until;
}

#endif
