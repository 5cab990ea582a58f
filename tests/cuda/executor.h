// CUDA C on the CPU: the words of the language, for g++.
//
// Included before an unchanged .cu file (g++ -include executor.h). A kernel becomes a plain function;
// threadIdx and its kind are variables that the scheduler in executor.cpp sets before it lets a thread
// run; barriers and warp collectives are calls into the scheduler, with the line they stand on.
#pragma once
#include <math.h>  // in C++: sqrt and fma of float are float, as in CUDA
#include <stdint.h>
#include <string.h>

#include <type_traits>
#include <utility>

#define __global__
#define __device__
#define __forceinline__ inline
#define __launch_bounds__(...)
// All shared variables stand in one section, which the scheduler can find and overwrite.
#define __shared__ static __attribute__((section("cuda_shared")))

struct uint3 { unsigned x, y, z; };
struct alignas(16) float4 { float x, y, z, w; };

namespace executor {
extern uint3 thread_index, block_index, block_size, grid_size;
void barrier(int line);
void warp_barrier(uint32_t mask, int line);
uint64_t exchange(uint32_t mask, uint64_t value, int source_lane, int line);
int lane();
const char* launch(void (*body)(void*), void* argument, const unsigned* sizes, unsigned seed);

template <class V> V shuffle(uint32_t mask, V value, int source, int line)
{
    uint64_t bits = 0;
    memcpy(&bits, &value, sizeof value);
    bits = exchange(mask, bits, source < 0 || source > 31 ? lane() : source, line);
    memcpy(&value, &bits, sizeof value);
    return value;
}

// A parameter's type as text: f4, i8, "c*f4" for const float*, "m*f4" for float*, V3524 for a struct.
template <class A> int describe(char* to)
{
    if constexpr (std::is_pointer_v<A>) {
        using E = std::remove_pointer_t<A>;
        memcpy(to, std::is_const_v<E> ? "c*" : "m*", 2);
        return 2 + describe<std::remove_cv_t<E>>(to + 2);
    } else {
        *to = std::is_floating_point_v<A> ? 'f' : !std::is_integral_v<A> ? 'V' : std::is_signed_v<A> ? 'i' : 'u';
        int size = sizeof(A), digits = 1;
        for (int s = size; s >= 10; s /= 10) ++digits;
        for (int d = digits; d > 0; --d, size /= 10) to[d] = '0' + size % 10;
        return 1 + digits;
    }
}

template <class... A> const char* signature(void (*)(A...))
{
    static char text[8 * sizeof...(A) + 1];
    char* to = text;
    ((to += describe<std::remove_cv_t<A>>(to), *to++ = ','), ...);
    to[-1] = 0;
    return text;
}

template <class... A, size_t... I>
void call(void (*kernel)(A...), void** arguments, std::index_sequence<I...>)
{
    kernel(*(std::remove_cv_t<A>*)arguments[I]...);
}

template <class... A>
const char* run(void (*kernel)(A...), void** arguments, const unsigned* sizes, unsigned seed)
{
    struct Call { void (*kernel)(A...); void** arguments; } the_call{kernel, arguments};
    auto body = [](void* c) {
        call(((Call*)c)->kernel, ((Call*)c)->arguments, std::index_sequence_for<A...>{});
    };
    return launch(body, &the_call, sizes, seed);
}
}  // namespace executor

// What executor.py calls, for each kernel of the file.
#define EXECUTOR_ENTRY(kernel)                                                                     \
    extern "C" const char* signature_of_##kernel() { return executor::signature(kernel); }         \
    extern "C" const char* run_##kernel(void** arguments, const unsigned* sizes, unsigned seed)    \
    {                                                                                              \
        return executor::run(kernel, arguments, sizes, seed);                                      \
    }

#define threadIdx executor::thread_index
#define blockIdx executor::block_index
#define blockDim executor::block_size
#define gridDim executor::grid_size
#define __syncthreads() executor::barrier(__LINE__)
#define __syncwarp() executor::warp_barrier(0xffffffffu, __LINE__)
#define __shfl_sync(mask, v, source) executor::shuffle(mask, v, (source) & 31, __LINE__)
#define __shfl_xor_sync(mask, v, bits) executor::shuffle(mask, v, executor::lane() ^ (bits), __LINE__)
#define __shfl_down_sync(mask, v, by) executor::shuffle(mask, v, executor::lane() + (int)(by), __LINE__)
#define __shfl_up_sync(mask, v, by) executor::shuffle(mask, v, executor::lane() - (int)(by), __LINE__)

template <class A, class B> std::common_type_t<A, B> min(A a, B b)
{
    using C = std::common_type_t<A, B>;
    return (C)a < (C)b ? (C)a : (C)b;
}
template <class A, class B> std::common_type_t<A, B> max(A a, B b)
{
    using C = std::common_type_t<A, B>;
    return (C)a < (C)b ? (C)b : (C)a;
}
template <class V> V atomicAdd(V* to, V v)
{
    V old, sum;
    __atomic_load(to, &old, __ATOMIC_RELAXED);
    do sum = old + v;
    while (!__atomic_compare_exchange(to, &old, &sum, false, __ATOMIC_RELAXED, __ATOMIC_RELAXED));
    return old;
}
