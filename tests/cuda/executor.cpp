// The scheduler of the executor: runs the blocks of a grid in turn, and the threads of a block as
// fibers, on one thread of the CPU. Compiled without instrumentation even where the kernels are
// watched by a sanitizer; -DWATCH_ADDRESSES and -DWATCH_RACES tell the sanitizer about the fibers.
//
// A worker is a stack that carries CUDA threads, one after another. When its thread waits at a
// barrier, the worker waits with it, and another takes over the threads that have not begun. So a
// kernel without barriers needs one worker, and is a plain loop.
#include "executor.h"
#include "stacks.h"
#undef threadIdx
#undef blockIdx
#undef blockDim
#undef gridDim

#include <stdio.h>
#include <stdlib.h>

#include <algorithm>
#include <random>
#include <string>
#include <vector>

#ifdef WATCH_ADDRESSES
#include <sanitizer/common_interface_defs.h>
#endif
#ifdef WATCH_RACES
#include <sanitizer/tsan_interface.h>
#include <sys/mman.h>
extern "C" void AnnotateIgnoreWritesBegin(const char*, int);
extern "C" void AnnotateIgnoreWritesEnd(const char*, int);
#endif

// The shared variables of the kernels, from the linker; there may be none.
extern "C" __attribute__((weak, visibility("hidden"))) char __start_cuda_shared[];
extern "C" __attribute__((weak, visibility("hidden"))) char __stop_cuda_shared[];
#ifdef WATCH_RACES  // linked last: what stands before it is whole pages, which can be exchanged
__attribute__((section("cuda_shared"), aligned(4096), used)) static char end_of_shared[4096];
#endif

namespace executor {
uint3 thread_index, block_index, block_size, grid_size;

namespace {
constexpr size_t STACK = 64 << 10;
enum State { NEW, READY, AT_BARRIER, IN_WARP, DONE };

struct Worker {
    Context context;
    char* stack;
    void* fake_stack;  // of the address sanitizer
    void* fiber;       // of the race detector
};

struct Meeting {  // of the lanes of a warp that name the same mask
    uint32_t mask, arrived;
    int line;
    unsigned round;  // lanes of the last round may still be reading when the next begins
    uint32_t valid[2];
    uint64_t values[2][32];
    char token[2];
};

struct Thread {
    uint3 index;
    unsigned number;  // within the block: number / 32 is its warp
    State state;
    int line;  // where it waits
    Worker* worker;
    Meeting* meeting;
};

std::vector<Thread> threads;
std::vector<std::vector<Meeting>> warps;
std::vector<unsigned> order, ready;  // numbers of threads: to begin, to go on
std::vector<Worker*> free_workers, kept_stacks, used_workers;
size_t next_new, next_ready, done, waiting;
Thread* current;
Worker* current_worker;
Context scheduler;
void *scheduler_fake_stack, *scheduler_fiber;
const void* scheduler_stack;
size_t scheduler_stack_size;
void (*body)(void*);
void* argument;
std::string error;
int barrier_line;
unsigned barrier_round;
char barrier_token[2], end_token;

void fail(const std::string& message)
{
    if (error.empty()) error = message;
}

std::string name(const Thread& t)
{
    char text[120];
    snprintf(text, sizeof text, "block (%u, %u, %u) thread (%u, %u, %u)", block_index.x, block_index.y,
             block_index.z, t.index.x, t.index.y, t.index.z);
    return text;
}

// ---- workers

void to_scheduler()
{
    Worker* mine = current_worker;
    (void)mine;
#ifdef WATCH_ADDRESSES
    __sanitizer_start_switch_fiber(&mine->fake_stack, scheduler_stack, scheduler_stack_size);
#endif
#ifdef WATCH_RACES
    __tsan_switch_to_fiber(scheduler_fiber, __tsan_switch_to_fiber_no_sync);
#endif
    exchange_contexts(current_worker->context, scheduler);
#ifdef WATCH_ADDRESSES
    __sanitizer_finish_switch_fiber(mine->fake_stack, &scheduler_stack, &scheduler_stack_size);
#endif
}

void to_worker(Worker* w)
{
    current_worker = w;
#ifdef WATCH_ADDRESSES
    __sanitizer_start_switch_fiber(&scheduler_fake_stack, w->stack, STACK);
#endif
#ifdef WATCH_RACES
    __tsan_switch_to_fiber(w->fiber, __tsan_switch_to_fiber_no_sync);
#endif
    exchange_contexts(scheduler, w->context);
#ifdef WATCH_ADDRESSES
    __sanitizer_finish_switch_fiber(scheduler_fake_stack, nullptr, nullptr);
#endif
}

void work()
{
#ifdef WATCH_ADDRESSES
    __sanitizer_finish_switch_fiber(nullptr, &scheduler_stack, &scheduler_stack_size);
#endif
    for (;;) {
        while (next_new < order.size()) {
            current = &threads[order[next_new++]];
            current->worker = current_worker;
            thread_index = current->index;
            body(argument);
            current->state = DONE;
            ++done;
#ifdef WATCH_RACES
            __tsan_release(&end_token);
            break;  // here every CUDA thread is a fiber of its own, so that two of them can race
#endif
        }
        free_workers.push_back(current_worker);
        to_scheduler();
    }
}

Worker* new_worker()
{
#ifndef WATCH_RACES
    if (!free_workers.empty()) {
        Worker* w = free_workers.back();
        free_workers.pop_back();
        return w;
    }
#endif
    Worker* w;
    if (kept_stacks.empty()) {
        w = new Worker();
        w->stack = (char*)aligned_alloc(64, STACK);
    } else {
        w = kept_stacks.back();
        kept_stacks.pop_back();
    }
    prepare(w->context, w->stack, STACK, work);
    w->fake_stack = nullptr;
#ifdef WATCH_RACES
    w->fiber = __tsan_create_fiber(0);
#endif
    used_workers.push_back(w);
    return w;
}

void give_back_workers()
{
    if (!error.empty()) used_workers.clear();  // threads are stuck in the middle: leave their stacks
    for (Worker* w : used_workers) {
#ifdef WATCH_RACES  // a stack that is used again would look like a race with its last thread
        __tsan_destroy_fiber(w->fiber);
        AnnotateIgnoreWritesBegin("", 0);
        free(w->stack);
        AnnotateIgnoreWritesEnd("", 0);
        delete w;
#else
        kept_stacks.push_back(w);
#endif
    }
    used_workers.clear();
    free_workers.clear();
}

// ---- waiting

void wait(State state, int line)
{
    Thread* me = current;
    me->state = state;
    me->line = line;
    to_scheduler();
    current = me;
    thread_index = me->index;
}

void wake(Thread& t)
{
    t.state = READY;
    ready.push_back(t.number);
}

// The lanes of a meeting's mask that are still running.
uint32_t expected(const Meeting& m, unsigned warp)
{
    uint32_t lanes = 0;
    for (unsigned l = 0; l < 32 && warp * 32 + l < threads.size(); ++l)
        if (threads[warp * 32 + l].state != DONE) lanes |= 1u << l;
    return lanes & m.mask;
}

bool complete(const Meeting& m, unsigned warp)
{
    const uint32_t due = expected(m, warp);
    return m.arrived && (m.arrived & due) == due;
}

void dissolve(Meeting& m, unsigned warp)
{
    m.arrived = 0;
    ++m.round;
    for (unsigned number : order) {
        Thread& t = threads[number];
        if (number / 32 == warp && t.state == IN_WARP && t.meeting == &m) wake(t);
    }
}

// Wait until all lanes of the mask are here; returns the meeting, and its round.
Meeting* meet(uint32_t mask, uint64_t value, int line, unsigned& slot, bool orders_memory)
{
    const unsigned lane = current->number & 31, warp = current->number >> 5;
    auto place = [&] { return " at line " + std::to_string(line) + ", " + name(*current); };
    if (!(mask >> lane & 1)) fail("warp collective by a lane that its mask leaves out" + place());
    Meeting* m = nullptr;
    for (Meeting& known : warps[warp])
        if (known.mask == mask) m = &known;
    if (!m) {
        if (warps[warp].size() == warps[warp].capacity()) {
            fail("too many masks" + place());
            return nullptr;
        }
        warps[warp].push_back({});
        m = &warps[warp].back();
        m->mask = mask;
    }
    slot = m->round & 1;
    if (!m->arrived) {
        m->valid[slot] = 0;
        m->line = line;
    } else if (m->line != line) {
        fail("warp collective on two lines, " + std::to_string(m->line) + " too," + place());
    }
#ifdef WATCH_RACES
    if (orders_memory) __tsan_release(&m->token[slot]);
#endif
    m->values[slot][lane] = value;
    m->valid[slot] |= 1u << lane;
    m->arrived |= 1u << lane;
    if (complete(*m, warp)) {
        dissolve(*m, warp);
    } else {
        current->meeting = m;
        wait(IN_WARP, line);
    }
#ifdef WATCH_RACES
    if (orders_memory) __tsan_acquire(&m->token[slot]);
#endif
    (void)orders_memory;
    return m;
}

// ---- a block

// CUDA's shared memory begins undefined. Here it begins as NaN.
void spoil_shared_memory()
{
#ifdef WATCH_RACES  // fresh pages: no race with what another block had in its shared memory
    mmap(__start_cuda_shared, end_of_shared - __start_cuda_shared, PROT_READ | PROT_WRITE,
         MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0);
#endif
    for (volatile char* p = __start_cuda_shared; p < __stop_cuda_shared; ++p) *p = (char)0xFF;
}

void report_deadlock()
{
    for (const Thread& t : threads)
        if (t.state == AT_BARRIER || t.state == IN_WARP)
            fail("deadlock: " + name(t) + " waits in "
                 + (t.state == AT_BARRIER ? "__syncthreads" : "a warp collective") + " at line "
                 + std::to_string(t.line) + "; " + std::to_string(done) + " of "
                 + std::to_string(threads.size()) + " threads have returned");
}

void run_block()
{
    next_new = next_ready = done = waiting = 0;
    ready.clear();
    for (auto& meetings : warps) meetings.clear();
    for (Thread& t : threads) t.state = NEW;
    spoil_shared_memory();
    while (error.empty() && done < threads.size()) {
        if (next_ready < ready.size()) {
            Worker* w = threads[ready[next_ready++]].worker;
            if (next_ready == ready.size()) ready.clear(), next_ready = 0;
            to_worker(w);
        } else if (next_new < threads.size()) {
            to_worker(new_worker());
        } else {  // all wait: perhaps for lanes that have returned since
            for (unsigned w = 0; w < warps.size(); ++w)
                for (Meeting& m : warps[w])
                    if (complete(m, w)) dissolve(m, w);
            if (ready.empty()) report_deadlock();
        }
    }
    give_back_workers();
}
}  // namespace

// ---- what kernels call

int lane() { return current->number & 31; }

void barrier(int line)
{
    char* token = &barrier_token[barrier_round & 1];  // two: the first to leave may meet the next one
    (void)token;                                      // while the last is still leaving this
#ifdef WATCH_RACES
    __tsan_release(token);
#endif
    if (waiting == 0) barrier_line = line;
    else if (barrier_line != line)
        fail("two different __syncthreads at once, lines " + std::to_string(barrier_line) + " and "
             + std::to_string(line) + ", " + name(*current));
    if (++waiting == threads.size()) {
        waiting = 0;
        ++barrier_round;
        for (unsigned number : order)
            if (threads[number].state == AT_BARRIER) wake(threads[number]);
    } else {
        wait(AT_BARRIER, line);
    }
#ifdef WATCH_RACES
    __tsan_acquire(token);
#endif
}

// A lane gets what `source` brought; garbage if that took no part. Orders no memory, as in CUDA.
uint64_t exchange(uint32_t mask, uint64_t value, int source, int line)
{
    unsigned slot;
    Meeting* m = meet(mask, value, line, slot, false);
    return m && (m->valid[slot] >> source & 1) ? m->values[slot][source] : ~0ull;
}

void warp_barrier(uint32_t mask, int line)
{
    unsigned slot;
    meet(mask, 0, line, slot, true);
}

// ---- what executor.py calls

// sizes: grid x, y, z, block x, y, z, and how many of the last blocks to run (0: all). seed 0 runs in
// natural order, others shuffle blocks and threads. Returns what went wrong, or null.
const char* launch(void (*kernel)(void*), void* arguments, const unsigned* sizes, unsigned seed)
{
    body = kernel;
    argument = arguments;
    error.clear();
    grid_size = {sizes[0], sizes[1], sizes[2]};
    block_size = {sizes[3], sizes[4], sizes[5]};
    const size_t blocks = (size_t)sizes[0] * sizes[1] * sizes[2];
    const size_t count = (size_t)sizes[3] * sizes[4] * sizes[5];
    if (!blocks || !count || count > 1024 || sizes[0] > 0x7fffffffu || sizes[1] > 65535 || sizes[2] > 65535)
        return (error = "invalid launch configuration").c_str();
#ifdef __x86_64__
    const unsigned kept_mode = __builtin_ia32_stmxcsr();
    __builtin_ia32_ldmxcsr(kept_mode | 0x8000);  // denormals become 0: CuPy compiles with -ftz=true
#endif
    threads.resize(count);
    order.resize(count);
    warps.resize((count + 31) / 32);
    for (auto& meetings : warps) meetings.reserve(40);
    // Nothing below grows while threads run: the race detector would see the copying.
    for (auto* list : {&free_workers, &used_workers}) list->reserve(count);
    ready.reserve(2 * count);
    for (unsigned i = 0; i < count; ++i) {
        const uint3 index = {i % sizes[3], i / sizes[3] % sizes[4], i / sizes[3] / sizes[4]};
        threads[i] = {index, i, NEW, 0, nullptr, nullptr};
        order[i] = i;
    }
    std::mt19937 chance(seed);
    const size_t first = sizes[6] && sizes[6] < blocks ? blocks - sizes[6] : 0;
    std::vector<size_t> turns(seed ? blocks - first : 0);
    for (size_t i = 0; i < turns.size(); ++i) turns[i] = first + i;
    std::shuffle(turns.begin(), turns.end(), chance);
#ifdef WATCH_RACES
    scheduler_fiber = __tsan_get_current_fiber();
#endif
    for (size_t i = 0; i < blocks - first && error.empty(); ++i) {
        const size_t b = seed ? turns[i] : first + i;
        block_index = {(unsigned)(b % sizes[0]), (unsigned)(b / sizes[0] % sizes[1]),
                       (unsigned)(b / sizes[0] / sizes[1])};
        if (seed) std::shuffle(order.begin(), order.end(), chance);
        run_block();
    }
#ifdef WATCH_RACES
    __tsan_acquire(&end_token);
#endif
#ifdef __x86_64__
    __builtin_ia32_ldmxcsr(kept_mode);
#endif
    return error.empty() ? nullptr : error.c_str();
}
}  // namespace executor
