/* A module through LLVM's passes to a relocatable object. */
#include "codegen/llvm/emit.h"
#include <llvm-c/Analysis.h>
#include <llvm-c/Target.h>
#include <llvm-c/TargetMachine.h>
#include <llvm-c/Transforms/PassBuilder.h>
#include <pthread.h>
#include <string.h>

/* Holds what it is working on, so that worker_free finds it when memory ended in between; the context holds its modules. */
struct Worker {
    const CpuTarget *target;
    LLVMContextRef cx;
    LLVMTargetMachineRef machine;
    LLVMBuilderRef builder;
    Arena *arena;               /* while a kernel is emitted */
    LLVMMemoryBufferRef memory; /* while code is copied */
    char *text;                 /* while IR is copied */
};

/* Chosen by measurement: what scalar offsets, phis and our own redundancies need, and nothing that reorders arithmetic. */
static const char *const pipeline =
    "function(mem2reg,early-cse,instcombine<no-verify-fixpoint>,simplifycfg,loop-mssa(licm),early-cse<memssa>)";

static void initialise(void)
{
    LLVMInitializeX86TargetInfo();
    LLVMInitializeX86Target();
    LLVMInitializeX86TargetMC();
    LLVMInitializeX86AsmPrinter();
    LLVMInitializeAArch64TargetInfo();
    LLVMInitializeAArch64Target();
    LLVMInitializeAArch64TargetMC();
    LLVMInitializeAArch64AsmPrinter();
}

Worker *worker_new(Err *err, const CpuTarget *target)
{
    static pthread_once_t once = PTHREAD_ONCE_INIT;
    pthread_once(&once, initialise);
    LLVMTargetRef t;
    char *why = NULL;
    if (LLVMGetTargetFromTriple(target->triple, &t, &why)) {
        err_env(err, "LLVM has no target %s: %s", target->triple, why);
        LLVMDisposeMessage(why);
        return NULL;
    }
    Worker *w = mem_alloc(sizeof *w);
    w->target = target;
    w->cx = LLVMContextCreate();
    w->machine = LLVMCreateTargetMachine(t, target->triple, target->cpu, target->features, LLVMCodeGenLevelDefault,
                                         LLVMRelocPIC, LLVMCodeModelDefault);
    w->builder = LLVMCreateBuilderInContext(w->cx);
    return w;
}

void worker_free(Worker *w)
{
    if (!w)
        return;
    arena_free(w->arena);
    if (w->memory)
        LLVMDisposeMemoryBuffer(w->memory);
    LLVMDisposeMessage(w->text);
    LLVMDisposeBuilder(w->builder);
    LLVMDisposeTargetMachine(w->machine);
    LLVMContextDispose(w->cx);
    mem_free(w);
}

static bool run_passes(Worker *w, Err *err, LLVMModuleRef mod)
{
    LLVMPassBuilderOptionsRef o = LLVMCreatePassBuilderOptions();
    LLVMErrorRef e = LLVMRunPasses(mod, pipeline, w->machine, o);
    LLVMDisposePassBuilderOptions(o);
    if (!e)
        return true;
    char *why = LLVMGetErrorMessage(e);
    err_env(err, "LLVM: %s", why);
    LLVMDisposeErrorMessage(why);
    return false;
}

static LLVMModuleRef module_of(Worker *w, Err *err, const Graph *k, const char *symbol)
{
    LLVMModuleRef mod = LLVMModuleCreateWithNameInContext("kernel", w->cx);
    LLVMSetTarget(mod, w->target->triple);
    LLVMTargetDataRef layout = LLVMCreateTargetDataLayout(w->machine);
    LLVMSetModuleDataLayout(mod, layout);
    LLVMDisposeTargetData(layout);
    w->arena = arena_new();
    emit_kernel(w->arena, w->builder, w->target, mod, k, symbol);
    arena_free(w->arena);
    w->arena = NULL;
#ifndef NDEBUG
    char *why = NULL;
    if (LLVMVerifyModule(mod, LLVMReturnStatusAction, &why))
        die("kernel %s: LLVM IR does not verify: %s", k->name, why);
    LLVMDisposeMessage(why);
#endif
    if (run_passes(w, err, mod))
        return mod;
    LLVMDisposeModule(mod);
    return NULL;
}

static bool code_of(Worker *w, Err *err, LLVMModuleRef mod, LLVMCodeGenFileType type, Buf *out)
{
    char *why = NULL;
    if (LLVMTargetMachineEmitToMemoryBuffer(w->machine, mod, type, &why, &w->memory)) {
        err_env(err, "LLVM: %s", why);
        LLVMDisposeMessage(why);
        return false;
    }
    buf_add(out, LLVMGetBufferStart(w->memory), LLVMGetBufferSize(w->memory));
    LLVMDisposeMemoryBuffer(w->memory);
    w->memory = NULL;
    return true;
}

bool worker_object(Worker *w, Err *err, const Graph *k, const char *symbol, Buf *object)
{
    LLVMModuleRef mod = module_of(w, err, k, symbol);
    bool ok = mod && code_of(w, err, mod, LLVMObjectFile, object);
    if (mod)
        LLVMDisposeModule(mod);
    return ok;
}

bool worker_text(Worker *w, Err *err, const Graph *k, const char *symbol, Buf *ir, Buf *assembly)
{
    LLVMModuleRef mod = module_of(w, err, k, symbol);
    if (!mod)
        return false;
    if (ir) {
        w->text = LLVMPrintModuleToString(mod);
        buf_str(ir, w->text);
        LLVMDisposeMessage(w->text);
        w->text = NULL;
    }
    if (assembly)
        LLVMSetTargetMachineAsmVerbosity(w->machine, true);
    bool ok = !assembly || code_of(w, err, mod, LLVMAssemblyFile, assembly);
    LLVMDisposeModule(mod);
    return ok;
}
