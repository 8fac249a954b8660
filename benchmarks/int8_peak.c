/* How many operations per second one core can do at most: a loop on registers only, nothing from memory.
 *
 * int8: vpdpbusd where the CPU has VNNI; else vpmaddubsw, vpmaddwd and vpaddd, which is what every u8 x s8 kernel has
 * to do for a sum in 32 bits. float32: vfmadd231ps. A multiplication with its addition counts as two operations.
 * Instructions are written out as assembly so that no compiler can fold the loop away; the accumulators are enough to
 * hide the latency of every instruction. Usage: int8_peak avx2|avxvnni|avx512vnni int8|fp32 SECONDS
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#define TWELVE(X) X(0) X(1) X(2) X(3) X(4) X(5) X(6) X(7) X(8) X(9) X(10) X(11)
#define CLOBBERED                                                                                                     \
    "xmm0", "xmm1", "xmm2", "xmm3", "xmm4", "xmm5", "xmm6", "xmm7", "xmm8", "xmm9", "xmm10", "xmm11", "xmm12",        \
        "xmm13", "xmm14", "xmm15"

/* Accumulators 0 to 11, operands in 12 and 13; the three-instruction form needs scratch registers: 14 and 15 take
 * turns, so it has ten accumulators' worth of independent work in flight through renaming. */
#define MADD(I)                                                                                                       \
    "vpmaddubsw %%ymm12, %%ymm13, %%ymm14\n\tvpmaddwd %%ymm15, %%ymm14, %%ymm14\n\tvpaddd %%ymm14, %%ymm" #I          \
    ", %%ymm" #I "\n\t"
#define FMA(I) "vfmadd231ps %%ymm12, %%ymm13, %%ymm" #I "\n\t"
#define DOT(I) "%{vex%} vpdpbusd %%ymm12, %%ymm13, %%ymm" #I "\n\t"
#define DOT512(I) "vpdpbusd %%zmm12, %%zmm13, %%zmm" #I "\n\t"
#define FMA512(I) "vfmadd231ps %%zmm12, %%zmm13, %%zmm" #I "\n\t"
#define CLEAR(I) "vpxor %%xmm" #I ", %%xmm" #I ", %%xmm" #I "\n\t"

/* The three-instruction form needs ymm15 as the ones of vpmaddwd; zeros in all registers cost as much as other values. */
#define LOOP(NAME, BODY)                                                                                              \
    static void NAME(long rounds) {                                                                                   \
        __asm__ volatile(TWELVE(CLEAR) CLEAR(12) CLEAR(13) CLEAR(14) CLEAR(15) "1:\n\t" TWELVE(BODY) TWELVE(BODY)     \
                         "dec %0\n\tjnz 1b\n\tvzeroupper\n\t"                                                         \
                         : "+r"(rounds)                                                                               \
                         :                                                                                            \
                         : CLOBBERED, "cc");                                                                          \
    }

LOOP(int8_avx2, MADD)
LOOP(fp32_avx2, FMA)
#ifdef WITH_AVXVNNI
LOOP(int8_avxvnni, DOT)
#endif
#ifdef WITH_AVX512
LOOP(int8_avx512vnni, DOT512)
LOOP(fp32_avx512, FMA512)
#endif

static double now(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

int main(int argc, char **argv) {
    void (*loop)(long) = NULL;
    double per_instruction = 0; /* operations of one BODY */
    if (argc != 4) {
        fprintf(stderr, "usage: int8_peak avx2|avxvnni|avx512vnni int8|fp32 SECONDS\n");
        return 2;
    }
    int int8 = strcmp(argv[2], "int8") == 0;
    if (strcmp(argv[1], "avx2") == 0 || (strcmp(argv[1], "avxvnni") == 0 && !int8)) {
        loop = int8 ? int8_avx2 : fp32_avx2;
        per_instruction = int8 ? 64 : 16;
    }
#ifdef WITH_AVXVNNI
    if (strcmp(argv[1], "avxvnni") == 0 && int8) {
        loop = int8_avxvnni;
        per_instruction = 64;
    }
#endif
#ifdef WITH_AVX512
    if (strcmp(argv[1], "avx512vnni") == 0) {
        loop = int8 ? int8_avx512vnni : fp32_avx512;
        per_instruction = int8 ? 128 : 32;
    }
#endif
    if (loop == NULL) {
        fprintf(stderr, "int8_peak was not compiled for %s %s\n", argv[1], argv[2]);
        return 2;
    }
    /* The best of many short slices: other work on the machine only ever makes a slice slower. */
    const long rounds = 200000;
    double best = 1e30, until = now() + atof(argv[3]);
    loop(rounds);
    while (now() < until) {
        double started = now();
        loop(rounds);
        double seconds = now() - started;
        if (seconds < best) best = seconds;
    }
    printf("%.6g\n", per_instruction * 24 * (double)rounds / best / 1e9);
    return 0;
}
