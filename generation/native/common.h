/* What the files of the native step share: threads, vectors, e^x. */
#ifndef JANUS_COMMON_H
#define JANUS_COMMON_H

#include <math.h>
#include <stdint.h>
#include <string.h>

#define PRAGMA(x) _Pragma(#x)
#ifdef _OPENMP
int omp_get_thread_num(void); /* no omp.h, so that a compiler without it will do */
int omp_get_num_threads(void);
#define SELF omp_get_thread_num()
#define TEAM omp_get_num_threads() /* there may be fewer than were asked for */
#define PARALLEL(n) PRAGMA(omp parallel num_threads(n))
#define WAIT PRAGMA(omp barrier)
#else
#define SELF 0
#define TEAM 1
#define PARALLEL(n)
#define WAIT
#endif
#define UNROLL PRAGMA(GCC unroll 16)

#if defined(__x86_64__) && defined(__GNUC__) && !defined(__clang__) && defined(__linux__)
#define X86 1
#define EVERY_CPU __attribute__((target_clones("arch=x86-64-v4", "arch=x86-64-v3", "default")))
#else
#define EVERY_CPU
#endif
#define INLINE static inline __attribute__((always_inline))
#ifdef X86
#include <immintrin.h>
#define V512 __attribute__((target("avx512f,avx512bw,avx512vl,avx512dq,avx512vnni")))
#define B512 __attribute__((target("avx512f,avx512bw,avx512vl,avx512dq,avx512bf16")))
#define V256 __attribute__((target("avx2,fma")))
#endif
enum { PLAIN, AVX2, AVX512 }; /* instructions; PLAIN: what the compiler makes of it */

/* Eight lanes: two 256-bit multiply-adds a cycle are what most of today's CPUs do. */
enum { WIDTH = 8 };
typedef float Lanes __attribute__((vector_size(4 * WIDTH), aligned(4), may_alias));
typedef uint16_t Halves __attribute__((vector_size(2 * WIDTH), aligned(2), may_alias));
typedef uint32_t Words __attribute__((vector_size(4 * WIDTH), aligned(4), may_alias));

enum { FP32, BF16, BF16_BOTH, INT8, INT4 }; /* of matrices; BF16_BOTH: x is rounded to it too */
enum { GROUP = 64, CHANNELS = 16 };         /* of packed ones; see packed.h */

INLINE int64_t whole(int64_t n, int64_t unit) { return (n + unit - 1) / unit * unit; }

INLINE float widen(uint16_t half) {
    uint32_t bits = (uint32_t)half << 16;
    float value;
    memcpy(&value, &bits, 4);
    return value;
}

/* To the nearest bfloat16, ties to even; NaN stays NaN. */
INLINE uint16_t narrow(float value) {
    uint32_t bits;
    memcpy(&bits, &value, 4);
    if ((bits & 0x7fffffff) > 0x7f800000) return (uint16_t)(bits >> 16 | 64);
    return (uint16_t)((bits + 0x7fff + (bits >> 16 & 1)) >> 16);
}

/* Eight numbers at p, fp32 or bfloat16. */
INLINE Lanes lanes(const void *p, int64_t at, int half) {
    if (!half) return *(const Lanes *)((const float *)p + at);
    Words bits = __builtin_convertvector(*(const Halves *)((const uint16_t *)p + at), Words) << 16;
    return (Lanes)bits;
}

#ifdef X86
/* Eight numbers, widened by one instruction, which compilers do not find. */
V256 INLINE __m256 eight(const void *p, int64_t at, int half) {
    if (!half) return _mm256_loadu_ps((const float *)p + at);
    __m128i v = _mm_loadu_si128((const __m128i *)((const uint16_t *)p + at));
    return _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_cvtepu16_epi32(v), 16));
}
#endif

INLINE float number(const void *p, int64_t at, int half) {
    return half ? widen(((const uint16_t *)p)[at]) : ((const float *)p)[at];
}

INLINE float total(Lanes v) { /* in one order, whatever the CPU */
    return ((v[0] + v[4]) + (v[2] + v[6])) + ((v[1] + v[5]) + (v[3] + v[7]));
}

/* e^x, x kept within what fp32 holds: Cody and Waite's reduction, a polynomial, an exponent; some
 * 1e-7 off. */
INLINE float power(float x) {
    x = x < -87.0f ? -87.0f : x > 88.0f ? 88.0f : x;
    float n = rintf(x * 1.44269504f);
    float r = x - n * 0.693359375f + n * 2.12194440e-4f;
    float p = 1.9875691500e-4f;
    p = p * r + 1.3981999507e-3f;
    p = p * r + 8.3334519073e-3f;
    p = p * r + 4.1665795894e-2f;
    p = p * r + 1.6666665459e-1f;
    p = p * r + 5.0000001201e-1f;
    p = p * r * r + r + 1.0f;
    int32_t bits = ((int32_t)n + 127) << 23;
    float scale;
    memcpy(&scale, &bits, 4);
    return p * scale;
}

/* This thread's part of n things, in whole units. */
INLINE void share(int64_t n, int64_t unit, int self, int threads, int64_t *from, int64_t *to) {
    int64_t units = (n + unit - 1) / unit, each = (units + threads - 1) / threads * unit;
    *from = each * self < n ? each * self : n;
    *to = *from + each < n ? *from + each : n;
}

#endif
