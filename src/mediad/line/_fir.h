/* The FIR filters of the compiled core, in plain C with GCC's vector extensions.
 *
 * A bank has one row of float32 taps for each of its `up` phases; see media/resample.py. Whatever
 * the chunks' sizes are, the taps of one output are added in one fixed order, so that the samples
 * do not depend on how they came.
 *
 * Two ways to use the lanes of a vector register:
 *   across  few phases (8 to 16 kHz): lanes are outputs of the same phase, `down` inputs apart. The
 *           input is dealt to `down` planes first, so that their samples lie side by side.
 *   along   many phases (22.05 to 8 kHz): lanes are taps of one output.
 *
 * The scratch memory is shared by all calls: nothing runs without the GIL.
 */
#ifndef MEDIAD_FIR_H
#define MEDIAD_FIR_H

#include <stdint.h>
#include <string.h>

#if defined(__BYTE_ORDER__) && __BYTE_ORDER__ != __ORDER_LITTLE_ENDIAN__
#error "samples on the wire are little-endian, and so must be the machine's"
#endif

#define FIR_MAX_ROW 704       /* taps of a phase: 192 to 8 kHz has 672 */
#define FIR_MAX_IN 960        /* input samples of one run */
#define FIR_MAX_OUT 1920      /* output samples of one run */
#define FIR_MAX_ACROSS 24     /* phases or planes; with more it works along the taps */
#define FIR_GROUP 32          /* outputs that are summed side by side */

typedef struct {
    const float *taps; /* up rows, oldest input sample first */
    int up, down, row;
} fir_bank;

#if defined(__GNUC__)
#define FIR_INLINE static inline __attribute__((always_inline))
typedef float fir_oct __attribute__((vector_size(32)));
typedef float fir_oct_at __attribute__((vector_size(32), aligned(4), may_alias));
typedef float fir_quad __attribute__((vector_size(16)));
typedef float fir_quad_at __attribute__((vector_size(16), aligned(4), may_alias));
typedef int16_t fir_sample __attribute__((aligned(1), may_alias)); /* at any address */
#else
#define FIR_INLINE static inline
typedef int16_t fir_sample;
#endif

/* A plane has room behind its end: the last group reads past it; what it makes is not used. */
static float fir_planes[FIR_MAX_ROW + FIR_MAX_IN + FIR_MAX_ACROSS * (FIR_GROUP + 2)];
static float fir_mixed[FIR_MAX_OUT + FIR_MAX_ACROSS * (FIR_GROUP + 2)];

/* Add taps first, first + step, ... times FIR_GROUP neighbours of x, which moves on by one a tap. */
#if defined(__GNUC__)
#define FIR_ADD_GROUP(name, lanes, lanes_at, count)                                              \
    FIR_INLINE void name(float *sums, const float *taps, int first, int row, int step,           \
                         const float *x)                                                         \
    {                                                                                            \
        lanes sum[count];                                                                        \
        for (int i = 0; i < count; i++)                                                          \
            sum[i] = ((lanes_at *)sums)[i];                                                      \
        for (int k = first; k < row; k += step, x++)                                             \
            for (int i = 0; i < count; i++)                                                      \
                sum[i] += taps[k] * ((const lanes_at *)x)[i];                                    \
        for (int i = 0; i < count; i++)                                                          \
            ((lanes_at *)sums)[i] = sum[i];                                                      \
    }
FIR_ADD_GROUP(fir_add_group_by_4, fir_quad, fir_quad_at, 8)
FIR_ADD_GROUP(fir_add_group_by_8, fir_oct, fir_oct_at, 4)
#else
FIR_INLINE void fir_add_group_by_4(float *sums, const float *taps, int first, int row, int step,
                                   const float *x)
{
    for (int k = first; k < row; k += step, x++)
        for (int i = 0; i < FIR_GROUP; i++)
            sums[i] += taps[k] * x[i];
}
#define fir_add_group_by_8 fir_add_group_by_4
#endif

/* Return the sum of row taps times as many samples; row is a multiple of 4. */
FIR_INLINE float fir_dot(const float *taps, const float *x, int row)
{
#if defined(__GNUC__)
    fir_quad sum = {0, 0, 0, 0};
    for (int k = 0; k < row; k += 4)
        sum += *(const fir_quad_at *)(taps + k) * *(const fir_quad_at *)(x + k);
#else
    float sum[4] = {0, 0, 0, 0};
    for (int k = 0; k < row; k += 4)
        for (int i = 0; i < 4; i++)
            sum[i] += taps[k + i] * x[k + i];
#endif
    return (sum[0] + sum[1]) + (sum[2] + sum[3]);
}

/* Round to the nearest, to even in the middle, and clip. */
FIR_INLINE int16_t fir_round(float value)
{
    int32_t bits;
    value = value > 32767.0f ? 32767.0f : value;
    value = value < -32768.0f ? -32768.0f : value;
    value += 12582912.0f; /* 1.5 * 2^23: what is left of the mantissa are whole numbers */
    memcpy(&bits, &value, sizeof bits);
    return (int16_t)bits;
}

/* Deal samples to planes: sample i becomes number i / down of plane i % down. */
FIR_INLINE void fir_deal(const int16_t *samples, int n, int down, int stride)
{
    const int whole = n / down;
    for (int plane = 0; plane < down; plane++) {
        float *to = fir_planes + plane * stride;
        for (int i = 0; i < whole; i++)
            to[i] = samples[i * down + plane];
        if (whole * down + plane < n)
            to[whole] = samples[whole * down + plane];
    }
}

FIR_INLINE void fir_store(const float *mixed, int stride, int up, int count, fir_sample *out)
{
    const int whole = count / up;
    for (int i = 0; i < whole; i++)
        for (int phase = 0; phase < up; phase++)
            out[i * up + phase] = fir_round(mixed[phase * stride + i]);
    for (int phase = 0; phase < count - whole * up; phase++)
        out[whole * up + phase] = fir_round(mixed[phase * stride + whole]);
}

FIR_INLINE void fir_across(const fir_bank *bank, int up, int down, const int16_t *samples, int n,
                           int next, int count, fir_sample *out, int by_8)
{
    const int stride = (bank->row - 1 + n) / down + 1 + FIR_GROUP;
    const int mixed_stride = count / up + 1 + FIR_GROUP;
    fir_deal(samples, bank->row - 1 + n, down, stride);
    for (int m = 0; m < up && m < count; m++) {
        const int at = next + m * down;
        const float *taps = bank->taps + at % up * bank->row;
        float *mixed = fir_mixed + m * mixed_stride;
        for (int i = 0; i < (count - m + up - 1) / up; i += FIR_GROUP) {
            memset(mixed + i, 0, FIR_GROUP * sizeof(float));
            for (int k = 0; k < down; k++) {
                const int from = at / up + k;
                const float *x = fir_planes + from % down * stride + from / down + i;
                if (by_8)
                    fir_add_group_by_8(mixed + i, taps, k, bank->row, down, x);
                else
                    fir_add_group_by_4(mixed + i, taps, k, bank->row, down, x);
            }
        }
    }
    fir_store(fir_mixed, mixed_stride, up, count, out);
}

FIR_INLINE void fir_along(const fir_bank *bank, const int16_t *samples, int n, int next, int count,
                          fir_sample *out)
{
    fir_deal(samples, bank->row - 1 + n, 1, 0);
    for (int m = 0, at = next; m < count; m++, at += bank->down)
        fir_mixed[m] =
            fir_dot(bank->taps + at % bank->up * bank->row, fir_planes + at / bank->up, bank->row);
    fir_store(fir_mixed, 0, 1, count, out);
}

/* Make count outputs of n new samples, which stand behind the row - 1 samples before them. The
 * first output falls next / up samples after the first new one. */
FIR_INLINE void fir_work(const fir_bank *bank, const int16_t *samples, int n, int next, int count,
                         fir_sample *out, int by_8)
{
    const int up = bank->up, down = bank->down;
    /* The usual pairs by name: as constants they let the compiler deal and store with vectors. */
    if (up == 2 && down == 1)
        fir_across(bank, 2, 1, samples, n, next, count, out, by_8);
    else if (up == 1 && down == 2)
        fir_across(bank, 1, 2, samples, n, next, count, out, by_8);
    else if (up == 1 && down == 3)
        fir_across(bank, 1, 3, samples, n, next, count, out, by_8);
    else if (up <= FIR_MAX_ACROSS && down <= FIR_MAX_ACROSS)
        fir_across(bank, up, down, samples, n, next, count, out, by_8);
    else
        fir_along(bank, samples, n, next, count, out);
}

typedef void fir_function(const fir_bank *, const int16_t *, int, int, int, fir_sample *);

static void fir_plain(const fir_bank *bank, const int16_t *samples, int n, int next, int count,
                      fir_sample *out)
{
    fir_work(bank, samples, n, next, count, out, 0);
}

static fir_function *fir_run = fir_plain;

/* Not target_clones: musl has no ifunc, and no clone name means "AVX2 and FMA on any processor". */
#if defined(__GNUC__) && defined(__x86_64__)
__attribute__((target("avx2,fma"))) static void fir_wide(const fir_bank *bank,
                                                         const int16_t *samples, int n, int next,
                                                         int count, fir_sample *out)
{
    fir_work(bank, samples, n, next, count, out, 1);
}

static void fir_choose(void)
{
    __builtin_cpu_init();
    if (__builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma"))
        fir_run = fir_wide;
}
#else
static void fir_choose(void) {}
#endif

#endif
