/* One query over slots of its row: scores, softmax, the mean of values. Included once for each kind
 * of CPU, with NAMED, FOR and LOAD, which say how functions are called, compiled and read numbers.
 */
/* Scores of N slots from p on. */
PART void NAMED(scores)(const int N, const float *q, const void *keys, int half, float *scores,
                        int64_t p, int64_t size, float scale) {
    Lanes sum[MANY] = {{0}};
    int64_t i = 0;
    for (; i + WIDTH <= size; i += WIDTH) {
        Lanes a = *(const Lanes *)(q + i);
        UNROLL
        for (int n = 0; n < N; n++) sum[n] += a * LOAD(keys, (p + n) * size + i, half);
    }
    UNROLL
    for (int n = 0; n < N; n++) {
        float rest = 0;
        for (int64_t j = i; j < size; j++) rest += q[j] * number(keys, (p + n) * size + j, half);
        scores[p + n] = (total(sum[n]) + rest) * scale;
    }
}

/* C·WIDTH columns of the mean of values. */
PART void NAMED(mean)(const int C, const float *weights, const void *values, int half, float *y,
                      int64_t first, int64_t last, int64_t size, float scale) {
    Lanes sum[8] = {{0}};
    for (int64_t p = first; p <= last; p++) {
        UNROLL
        for (int c = 0; c < C; c++) sum[c] += weights[p] * LOAD(values, p * size + c * WIDTH, half);
    }
    UNROLL
    for (int c = 0; c < C; c++) *(Lanes *)(y + c * WIDTH) = sum[c] * scale;
}

/* One query head over slots first .. last of its row. */
PART void NAMED(look_in)(int half, const float *q, const void *keys, const void *values,
                         float *scores, float *y, int64_t first, int64_t last, int64_t size) {
    float scale = 1.0f / sqrtf((float)size), top = -INFINITY, all = 0;
    int64_t p = first, i = 0;
    const char *from = values;
    int64_t bytes = half ? 2 : 4, row = size * bytes;
    for (; p + MANY <= last + 1; p += MANY) {
        for (int64_t at = p * row; at < (p + MANY) * row; at += 64) { /* keys soon, values later */
            __builtin_prefetch((const char *)keys + at + 2 * MANY * row, 0, 3);
            __builtin_prefetch(from + at, 0, 2);
        }
        NAMED(scores)(MANY, q, keys, half, scores, p, size, scale);
    }
    for (; p <= last; p++) NAMED(scores)(1, q, keys, half, scores, p, size, scale);
    for (p = first; p <= last; p++) top = scores[p] > top ? scores[p] : top;
    PRAGMA(omp simd reduction(+ : all))
    for (p = first; p <= last; p++) {
        scores[p] = power(scores[p] - top);
        all += scores[p];
    }
    for (; i + 8 * WIDTH <= size; i += 8 * WIDTH)
        NAMED(mean)(8, scores, from + i * bytes, half, y + i, first, last, size, 1 / all);
    for (; i + WIDTH <= size; i += WIDTH)
        NAMED(mean)(1, scores, from + i * bytes, half, y + i, first, last, size, 1 / all);
    for (; i < size; i++) {
        float sum = 0;
        for (p = first; p <= last; p++) sum += scores[p] * number(values, p * size + i, half);
        y[i] = sum / all;
    }
}

WHOLE static void NAMED(look)(const float *q, const void *keys, const void *values, int half,
                              float *scores, float *y, int64_t first, int64_t last, int64_t size) {
    if (half) NAMED(look_in)(1, q, keys, values, scores, y, first, last, size);
    else NAMED(look_in)(0, q, keys, values, scores, y, first, last, size);
}
