// A bias for every channel of (rows, channels), and the activation after it, in one pass.
//
//   forward    y = act(x + bias)        act none (slope 1), leaky ReLU, or ReLU (slope 0)
//   backward   gx = gy * act'(...),  g_bias = the sum of gx over the rows
//   The backward pass looks at the sign of y, which is that of x + bias: x is not kept. (With
//   slope 0, y = 0 wherever x + bias <= 0.)
//
// Twins:    minigan/twins.py, bias_act_forward and bias_act_backward
// Launch:   as batchnorm.cu: block (lanes, 256 / lanes), grid (channel tiles, chunks). One launch
//           forward; two backward, the second for the sum over chunks, in a fixed order.
// Bytes:    forward reads x and writes y; backward reads y and gy and writes gx: the least possible.
// Saves:    plain CuPy passes over an array as large as x three times forward (add, multiply,
//           maximum) and five times backward, with temporary arrays between.

extern "C" __global__ void BOUNDS bias_act_forward(
    const REAL* __restrict__ x, const REAL* __restrict__ bias, REAL* __restrict__ y,
    INDEX rows, int channels, int chunk, REAL slope)
{
    const int c = own_channel();
    if (c >= channels) return;
    const REAL b = bias[c];
    const Rows own = own_rows(rows, chunk);
    for (INDEX r = own.first + threadIdx.y; r < own.stop; r += blockDim.y)
        y[r * channels + c] = activation(x[r * channels + c] + b, slope);
}

// partial[chunk, c] = the sum of gx over a chunk's rows
extern "C" __global__ void BOUNDS bias_act_backward(
    const REAL* __restrict__ y, const REAL* __restrict__ gy, REAL* __restrict__ gx,
    double* __restrict__ partial, INDEX rows, int channels, int chunk, REAL slope)
{
    __shared__ double shared[THREADS];
    const int c = own_channel();
    const Rows own = own_rows(rows, chunk);
    REAL sum = 0;
    for (INDEX r = c < channels ? own.first + threadIdx.y : own.stop; r < own.stop; r += blockDim.y) {
        const REAL g = gy[r * channels + c] * activation_slope(y[r * channels + c], slope);
        gx[r * channels + c] = g;
        sum += g;
    }
    const double all = sum_rows(sum, shared);
    if (threadIdx.y == 0 && c < channels) partial[blockIdx.y * (INDEX)channels + c] = all;
}

extern "C" __global__ void BOUNDS bias_act_merge(
    const double* __restrict__ partial, REAL* __restrict__ g_bias, int channels, int chunks)
{
    __shared__ double shared[THREADS];
    const int c = own_channel();
    double sum = 0;
    for (int k = c < channels ? threadIdx.y : chunks; k < chunks; k += blockDim.y)
        sum += partial[k * (INDEX)channels + c];
    const double all = sum_rows(sum, shared);
    if (threadIdx.y == 0 && c < channels) g_bias[c] = all;
}
