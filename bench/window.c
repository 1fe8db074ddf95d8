/* Lets callgrind count only while the generator measures. Preloaded into a program that runs under
 * callgrind: SIGUSR1 starts the counting, SIGUSR2 stops it.
 *
 * A thread waits for them. In a handler, callgrind would lose its own account of signals.
 */
#include <pthread.h>
#include <signal.h>
#include <stddef.h>
#include <valgrind/callgrind.h>

static sigset_t awaited;

static void *wait_for_signals(void *unused)
{
    int number;
    (void)unused;
    while (sigwait(&awaited, &number) == 0) {
        if (number == SIGUSR1)
            CALLGRIND_START_INSTRUMENTATION;
        else
            CALLGRIND_STOP_INSTRUMENTATION;
    }
    return NULL;
}

__attribute__((constructor)) static void prepare(void)
{
    pthread_t thread;
    sigemptyset(&awaited);
    sigaddset(&awaited, SIGUSR1);
    sigaddset(&awaited, SIGUSR2);
    pthread_sigmask(SIG_BLOCK, &awaited, NULL); /* here, and in all threads to come */
    pthread_create(&thread, NULL, wait_for_signals, NULL);
}
