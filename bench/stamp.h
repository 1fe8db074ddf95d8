/* A number in the sound itself: it survives filters, rate changes and a new framing of the wire.
 *
 * Ten symbols of 12 samples at 8 kHz (1.5 ms), each at plus or minus a level, fill the first 15 ms
 * of a frame: seven bits of its number and three that check number and call. What comes back is
 * read at the middle of each symbol, moved by the delay of the filters that it went through. The
 * other 5 ms take that delay, so a frame's stamp stays in its frame.
 */
#ifndef BENCH_STAMP_H
#define BENCH_STAMP_H

#include <stdint.h>
#include <string.h>

#define STAMP_BITS 10
#define STAMP_SYMBOL 12   /* samples of 8 kHz */
#define STAMP_LEVEL 8000
#define STAMP_WRAP 128    /* numbers: 2.56 s */

/* Of one FIR of media/resample.py, in samples of 16 kHz. */
#define STAMP_FILTER_DELAY 27.5

enum { STAMP_SILENT = -1, STAMP_BAD = -2 };

static inline unsigned stamp_word(unsigned number, unsigned call)
{
    unsigned check = number ^ number >> 3 ^ number >> 6;
    for (; call; call >>= 3)
        check ^= call;
    return number | (check & 7) << 7;
}

/* Write a frame of 20 ms; scale is 1 for 8 kHz and 2 for 16 kHz. */
static inline void stamp_write(int16_t *pcm, int scale, unsigned number, unsigned call)
{
    const unsigned word = stamp_word(number % STAMP_WRAP, call);
    const int symbol = STAMP_SYMBOL * scale;
    memset(pcm, 0, sizeof(int16_t) * 160 * (size_t)scale);
    for (int i = 0; i < STAMP_BITS * symbol; i++)
        pcm[i] = word >> i / symbol & 1 ? STAMP_LEVEL : -STAMP_LEVEL;
}

/* Return the number in a frame, STAMP_SILENT or STAMP_BAD; filters is how many it went through. */
static inline int stamp_read(const uint8_t *pcm, int scale, int filters, unsigned call)
{
    const int symbol = STAMP_SYMBOL * scale;
    const int first = (int)((symbol - 1 + filters * STAMP_FILTER_DELAY * scale) / 2 + 0.5);
    unsigned word = 0;
    int quiet = 0, doubtful = 0;
    for (int i = 0; i < STAMP_BITS; i++) {
        int16_t sample;
        memcpy(&sample, pcm + 2 * (first + i * symbol), 2);
        const int level = sample < 0 ? -(int)sample : sample;
        quiet += level < STAMP_LEVEL / 8;
        doubtful += level < STAMP_LEVEL / 2;
        word |= (unsigned)(sample > 0) << i;
    }
    if (quiet == STAMP_BITS)
        return STAMP_SILENT;
    if (doubtful || word != stamp_word(word % STAMP_WRAP, call))
        return STAMP_BAD;
    return (int)(word % STAMP_WRAP);
}

#endif
