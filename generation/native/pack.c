/* Matrices of numbers -> packed ones, as packed.h reads them. */
#include "common.h"

/* The scale of a group in half bytes, of several that are tried the one with the least squared
 * error; as a bfloat16. */
EVERY_CPU static uint16_t best_scale(const float *w) {
    float most = 0, least = INFINITY;
    for (int i = 0; i < GROUP; i++) most = fabsf(w[i]) > fabsf(most) ? w[i] : most;
    uint16_t best = 0;
    for (int tried = 0; most != 0 && tried < 10; tried++) {
        /* The largest number is -8 times the scale: that side has one step more. */
        float scale = widen(narrow(most / -8.0f * (1.1f - 0.04f * (float)tried)));
        if (scale == 0) break;
        float times = 1.0f / scale, error = 0;
        PRAGMA(omp simd reduction(+ : error))
        for (int i = 0; i < GROUP; i++) {
            float q = rintf(w[i] * times);
            q = q < -8 ? -8 : q > 7 ? 7 : q;
            error += (w[i] - q * scale) * (w[i] - q * scale);
        }
        if (error < least) least = error, best = narrow(scale);
    }
    return best;
}

/* w [n, k], fp32 or bfloat16, row-major -> packed and its scales; see packed.h. */
void janus_pack(int64_t kind, const void *w, int64_t half, int64_t n, int64_t k,
                          uint8_t *to, void *scales, int64_t threads) {
    int64_t groups = whole(k, GROUP) / GROUP, blocks = whole(n, CHANNELS) / CHANNELS;
    int four = kind == INT4;
    PARALLEL(threads) {
        for (int64_t b = SELF; b < blocks; b += TEAM)
            for (int64_t c = 0; c < CHANNELS; c++) {
                int64_t j = b * CHANNELS + c;
                float row[GROUP], most = 0, scale = 0;
                for (int64_t i = 0; j < n && i < k; i++) {
                    float v = fabsf(number(w, j * k + i, (int)half));
                    most = v > most ? v : most;
                }
                if (!four && j < n) ((float *)scales)[j] = scale = most / 127.0f;
                for (int64_t g = 0; g < groups; g++) {
                    for (int64_t i = 0; i < GROUP; i++)
                        row[i] = j < n && g * GROUP + i < k
                                     ? number(w, j * k + g * GROUP + i, (int)half) : 0;
                    if (four) {
                        uint16_t found = best_scale(row);
                        ((uint16_t *)scales)[(b * groups + g) * CHANNELS + c] = found;
                        scale = widen(found);
                    }
                    float times = scale != 0 ? 1.0f / scale : 0;
                    for (int64_t i = 0; i < GROUP; i++) {
                        float q = rintf(row[i] * times), low = four ? -8 : -127, high = four ? 7 : 127;
                        int v = (int)(q < low ? low : q > high ? high : q);
                        int64_t chunk = i / 4, at = c * 4 + i % 4;
                        if (!four)
                            to[((b * groups + g) * 16 + chunk) * 64 + at] = (uint8_t)(v + 128);
                        else {
                            uint8_t *byte = to + ((b * groups + g) * 8 + chunk % 8) * 64 + at;
                            *byte = chunk < 8 ? (uint8_t)(v + 8) : (uint8_t)(*byte | (v + 8) << 4);
                        }
                    }
                }
            }
    }
}
