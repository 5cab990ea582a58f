// What all kernels share. minigan/kernels.py puts this text before each file and
// compiles the two together, up to four times: REAL is float or double, and INDEX is int where all
// arrays are below 2^31 elements, else long long (32-bit arithmetic is the quicker).
//
// A block is blockDim.x * blockDim.y = 256 threads. x runs along what lies next to each other in
// memory (channels, or the numbers of a column), so that the threads of a warp read and write runs;
// y takes one row each. Where there are fewer than 32 channels, x is short and y is long instead.

#ifndef REAL
#define REAL float
#define INDEX int
#endif

#define THREADS 256
#define BOUNDS __launch_bounds__(THREADS, 4)  // four blocks on a multiprocessor: up to 64 registers

// none (slope 1), leaky ReLU (between), ReLU (slope 0). ReLU of -infinity is 0, of NaN is NaN.
__device__ __forceinline__ REAL activation(REAL v, REAL slope)
{
    if (v > 0) return v;
    return slope == 0 && v <= 0 ? (REAL)0 : slope * v;
}

__device__ __forceinline__ REAL activation_slope(REAL v, REAL slope)
{
    return v > 0 ? (REAL)1 : slope;
}

// The row of a matrix, or pixel of an image, that a thread of a one-dimensional grid works on.
__device__ __forceinline__ INDEX own_row()
{
    return (INDEX)blockIdx.x * (INDEX)blockDim.y + (INDEX)threadIdx.y;
}

// The channel that a thread works on, where the grid is (channel tiles, chunks of rows).
__device__ __forceinline__ int own_channel()
{
    return (int)(blockIdx.x * blockDim.x + threadIdx.x);
}

// The rows first ... stop - 1 of a block, where the grid is (channel tiles, chunks of rows).
struct Rows { INDEX first, stop; };

__device__ __forceinline__ Rows own_rows(INDEX rows, int chunk)
{
    const INDEX first = (INDEX)blockIdx.y * chunk;
    return {first, rows - first < chunk ? rows : first + chunk};
}

// The sum of `value` over the rows of the block, threadIdx.y = 0, 1, ..., for each threadIdx.x.
// Every thread of the block must call it, and every thread gets the sum. A tree in a fixed order,
// no atomics: the same numbers give the same sum, to the bit. blockDim.y is a power of two.
__device__ __forceinline__ double sum_rows(double value, double* shared)
{
    const int mine = threadIdx.y * blockDim.x + threadIdx.x;
    shared[mine] = value;
    for (int half = blockDim.y / 2; half > 0; half /= 2) {
        __syncthreads();
        if (threadIdx.y < half) shared[mine] += shared[mine + half * blockDim.x];
    }
    __syncthreads();
    const double sum = shared[threadIdx.x];
    __syncthreads();  // all have read it: `shared` may be used again
    return sum;
}
