/* Loaded into a program (LD_PRELOAD), it fills the program's disk while the number in NUMBER_FILE
 * (8 bytes) is not 0: nothing more can be written to a file (ENOSPC), not even in the place of what
 * is there, as on a file system that copies on write. Sockets, pipes and terminals are no files. */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <stdint.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <unistd.h>

static const volatile int64_t *is_full;

__attribute__((constructor)) static void find_number(void)
{
    int file = open(NUMBER_FILE, O_RDONLY | O_CLOEXEC);
    void *page = file < 0 ? MAP_FAILED : mmap(NULL, sizeof *is_full, PROT_READ, MAP_SHARED, file, 0);
    if (page == MAP_FAILED)
        abort();
    close(file);
    is_full = page;
}

static int has_room(int file)
{
    struct stat status;
    if (!*is_full || fstat(file, &status) != 0 || !S_ISREG(status.st_mode))
        return 1;
    errno = ENOSPC;
    return 0;
}

ssize_t write(int file, const void *data, size_t size)
{
    return has_room(file) ? syscall(SYS_write, file, data, size) : -1;
}

ssize_t writev(int file, const struct iovec *parts, int count)
{
    return has_room(file) ? syscall(SYS_writev, file, parts, count) : -1;
}

ssize_t pwrite(int file, const void *data, size_t size, off_t at)
{
    return has_room(file) ? syscall(SYS_pwrite64, file, data, size, at) : -1;
}

ssize_t pwrite64(int file, const void *data, size_t size, off64_t at)
{
    return pwrite(file, data, size, at);
}
