#include "codegen/llvm/emit.h"
LLVMValueRef math_exp(const Fn *f, LLVMValueRef x) { return call1(f, "llvm.exp", x); }
LLVMValueRef math_expm1(const Fn *f, LLVMValueRef x) { return call1(f, "llvm.exp", x); }
LLVMValueRef math_log(const Fn *f, LLVMValueRef x) { return call1(f, "llvm.log", x); }
LLVMValueRef math_log1p(const Fn *f, LLVMValueRef x) { return call1(f, "llvm.log", x); }
LLVMValueRef math_sin(const Fn *f, LLVMValueRef x) { return call1(f, "llvm.sin", x); }
LLVMValueRef math_cos(const Fn *f, LLVMValueRef x) { return call1(f, "llvm.cos", x); }
LLVMValueRef math_tanh(const Fn *f, LLVMValueRef x) { return call1(f, "llvm.tanh", x); }
LLVMValueRef math_erf(const Fn *f, LLVMValueRef x) { return call1(f, "llvm.exp", x); }
LLVMValueRef math_round(const Fn *f, LLVMValueRef x) { return call1(f, "llvm.roundeven", x); }
LLVMValueRef math_floor(const Fn *f, LLVMValueRef x) { return call1(f, "llvm.floor", x); }
LLVMValueRef math_ceil(const Fn *f, LLVMValueRef x) { return call1(f, "llvm.ceil", x); }
