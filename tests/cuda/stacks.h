// Switching stacks: a `Context` is where a fiber stopped, `prepare` makes one that begins at `entry`, and
// `exchange_contexts` stops one and goes on with another. Some assembly for x86-64, where it takes a
// few nanoseconds; elsewhere the C library's, which also saves the signal mask and is slower.
#pragma once
#include <stddef.h>

#ifdef __x86_64__
struct Context { void* stack_pointer; };
extern "C" void switch_stacks(void** save, void* load);
asm(".text\n"
    ".type switch_stacks, @function\n"
    "switch_stacks:\n"  // keep what a function must keep, exchange the stacks, take back the same
    "  pushq %rbp\n  pushq %rbx\n  pushq %r12\n  pushq %r13\n  pushq %r14\n  pushq %r15\n"
    "  movq %rsp, (%rdi)\n"
    "  movq %rsi, %rsp\n"
    "  popq %r15\n  popq %r14\n  popq %r13\n  popq %r12\n  popq %rbx\n  popq %rbp\n"
    "  ret\n");

static void prepare(Context& c, char* stack, size_t size, void (*entry)())
{
    void** top = (void**)(stack + size - 64);
    *--top = nullptr;  // where a return address would stand: keeps the stack aligned
    *--top = (void*)entry;
    for (int i = 0; i < 6; ++i) *--top = nullptr;
    c.stack_pointer = top;
}

static void exchange_contexts(Context& from, Context& to)
{
    switch_stacks(&from.stack_pointer, to.stack_pointer);
}
#else
#include <ucontext.h>
struct Context { ucontext_t context; };

static void prepare(Context& c, char* stack, size_t size, void (*entry)())
{
    getcontext(&c.context);
    c.context.uc_stack.ss_sp = stack;
    c.context.uc_stack.ss_size = size;
    makecontext(&c.context, entry, 0);
}

static void exchange_contexts(Context& from, Context& to) { swapcontext(&from.context, &to.context); }
#endif
