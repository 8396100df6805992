/* Preloaded by held_to_avx2.sh: the program finds a processor that has AVX2 and nothing beyond.

Where Linux lets the instruction CPUID fault (Intel's since 2012, most virtual machines), each one is answered here,
less what is newer: whichever library asks, it finds a Haswell. Elsewhere the libraries' own variables are set. oneDNN's
is kept from OpenVINO, whose copy would obey it while the rest of the plugin asks the processor. */
#define _GNU_SOURCE
#include <asm/prctl.h>
#include <cpuid.h>
#include <dlfcn.h>
#include <signal.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <ucontext.h>
#include <unistd.h>

static const char *const VARIABLES[][2] = {
    {"ATEN_CPU_CAPABILITY", "avx2"},
    {"MKL_ENABLE_INSTRUCTIONS", "AVX2"},
    {"NPY_DISABLE_CPU_FEATURES", "X86_V4 AVX512_ICL AVX512_SPR"},
    {"OPENBLAS_CORETYPE", "Haswell"},
    {"NUMBA_CPU_NAME", "haswell"},
    {"NUMBA_CPU_FEATURES", ""},
};

static bool faults;
static struct sigaction of_program; /* what the program itself does at SIGSEGV, which a fault raises */

static int libc_sigaction(int number, const struct sigaction *wanted, struct sigaction *before) {
    typedef int Function(int, const struct sigaction *, struct sigaction *);
    return ((Function *)dlsym(RTLD_NEXT, "sigaction"))(number, wanted, before);
}

static void answer_cpuid(greg_t *registers) {
    unsigned leaf = registers[REG_RAX], part = registers[REG_RCX], a, b, c, d;
    syscall(SYS_arch_prctl, ARCH_SET_CPUID, 1);
    __cpuid_count(leaf, part, a, b, c, d);
    syscall(SYS_arch_prctl, ARCH_SET_CPUID, 0);
    if (leaf == 7 && part == 0) {
        b &= ~0xdc230000u; /* AVX512: F, DQ, IFMA, PF, ER, CD, BW, VL */
        c &= ~0x00005f42u; /* AVX512: VBMI, VBMI2, VNNI, BITALG, VPOPCNTDQ; GFNI, VAES, VPCLMULQDQ */
        d &= ~0x03c0010cu; /* AVX512: 4VNNIW, 4FMAPS, VP2INTERSECT, FP16; AMX: BF16, TILE, INT8 */
    } else if (leaf == 7) {
        a = b = c = d = 0; /* AVX-VNNI, AVX512-BF16, AVX10 and whatever comes */
    }
    registers[REG_RAX] = a, registers[REG_RBX] = b, registers[REG_RCX] = c, registers[REG_RDX] = d;
    registers[REG_RIP] += 2;
}

static void at_segv(int number, siginfo_t *info, void *context) {
    greg_t *registers = ((ucontext_t *)context)->uc_mcontext.gregs;
    if (info->si_code == SI_KERNEL && memcmp((void *)registers[REG_RIP], "\x0f\xa2", 2) == 0) {
        answer_cpuid(registers);
    } else if (of_program.sa_handler == SIG_DFL || of_program.sa_handler == SIG_IGN) {
        libc_sigaction(number, &of_program, NULL);
        if (info->si_code <= 0) raise(number); /* another process sent it: nothing would raise it again */
    } else if (of_program.sa_flags & SA_SIGINFO) {
        of_program.sa_sigaction(number, info, context);
    } else {
        of_program.sa_handler(number);
    }
}

int sigaction(int number, const struct sigaction *wanted, struct sigaction *before) {
    if (number != SIGSEGV || !faults) return libc_sigaction(number, wanted, before);
    struct sigaction old = of_program;
    if (wanted) of_program = *wanted;
    if (before) *before = old;
    return 0;
}

sighandler_t signal(int number, sighandler_t handler) {
    struct sigaction wanted = {.sa_handler = handler, .sa_flags = SA_RESTART}, before;
    return sigaction(number, &wanted, &before) ? SIG_ERR : before.sa_handler;
}

char *getenv(const char *name) {
    typedef char *Function(const char *);
    Dl_info caller;
    if (strcmp(name, "ONEDNN_MAX_CPU_ISA") == 0 && !faults && dladdr(__builtin_return_address(0), &caller) &&
        !strstr(caller.dli_fname, "openvino"))
        return "AVX2";
    return ((Function *)dlsym(RTLD_NEXT, "getenv"))(name);
}

__attribute__((constructor)) static void hold(void) {
    /* Not on the alternate stack that a program may have set: it can be too small for a newer processor's registers. */
    struct sigaction ours = {.sa_sigaction = at_segv, .sa_flags = SA_SIGINFO};
    libc_sigaction(SIGSEGV, &ours, &of_program);
    faults = !getenv("HELD_BY_VARIABLES") && syscall(SYS_arch_prctl, ARCH_SET_CPUID, 0) == 0;
    if (faults) return;
    libc_sigaction(SIGSEGV, &of_program, NULL);
    for (size_t i = 0; i < sizeof VARIABLES / sizeof *VARIABLES; i++) setenv(VARIABLES[i][0], VARIABLES[i][1], 1);
}
