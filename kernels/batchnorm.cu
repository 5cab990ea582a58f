// Batch normalisation of (rows, channels), with the activation after it folded in.
//
//   forward    y = act((x - mean) * inv_std * gamma + beta),  inv_std = 1 / sqrt(variance + eps)
//   backward   g  = gy * act'(...)
//              gx = gamma * inv_std * (g - mean(g) - (x - mean) * inv_std^2 * mean(g * (x - mean)))
//   with means over the rows, and act none (slope 1), leaky ReLU or ReLU (slope 0).
//
// Twins:    minigan/twins.py, batch_norm_forward and batch_norm_backward
// Launch:   block (lanes, 256 / lanes): channels along x, rows along y. grid (channel tiles, chunks):
//           a block works on `chunk` rows; how many depends on the shape alone, never on the GPU.
//           Three launches each way: partial sums of every chunk, their sum, and the result.
// How:      a chunk fits the cache, so that its second pass, with the mean known, does not go to
//           memory: mean and variance as accurate as in two passes, for one. Chunks are joined by
//           Chan, Golub and LeVeque 1979, in double precision and in a fixed order: no atomics.
//           The mean is kept as two numbers, near + left: where the data lie far from zero, a
//           single one, rounded, would be off by more than they vary.
// Bytes:    forward reads x twice and writes y (the least, where x is larger than the cache);
//           backward reads x and gy twice and writes gx.
// Saves:    plain CuPy takes about ten launches forward, most of which read and write an array as
//           large as x, and the activation two more.

// partial[chunk, 0, c] = the mean of a chunk's rows, partial[chunk, 1, c] = its sum of squares about it
extern "C" __global__ void BOUNDS batch_norm_moments(
    const REAL* __restrict__ x, double* __restrict__ partial,
    INDEX rows, int channels, int chunk)
{
    __shared__ double shared[THREADS];
    const int c = own_channel();
    const Rows own = own_rows(rows, chunk);
    const INDEX mine = c < channels ? own.first + threadIdx.y : own.stop;  // idle lanes get no rows,
    const double share = 1.0 / (own.stop - own.first);  // but must not leave: all meet at the barriers

    REAL sum = 0;
    for (INDEX r = mine; r < own.stop; r += blockDim.y) sum += x[r * channels + c];
    const REAL near = sum_rows(sum, shared) * share;

    REAL left = 0, squares = 0;
    for (INDEX r = mine; r < own.stop; r += blockDim.y) {
        const REAL d = x[r * channels + c] - near;
        left += d;
        squares += d * d;
    }
    const double rest = sum_rows(left, shared);
    const double total = sum_rows(squares, shared) - rest * rest * share;
    if (threadIdx.y == 0 && c < channels) {
        partial[(blockIdx.y * 2LL + 0) * channels + c] = near + rest * share;
        partial[(blockIdx.y * 2LL + 1) * channels + c] = total;
    }
}

// statistics[0 ... 3, c] = near, left, variance, inv_std
extern "C" __global__ void BOUNDS batch_norm_merge(
    const double* __restrict__ partial, REAL* __restrict__ statistics,
    INDEX rows, int channels, int chunk, int chunks, REAL eps)
{
    __shared__ double shared[THREADS];
    const int c = own_channel();
    const int mine = c < channels ? threadIdx.y : chunks;

    double sum = 0;
    for (int k = mine; k < chunks; k += blockDim.y) {
        const double count = min((INDEX)chunk, rows - k * (INDEX)chunk);
        sum += count * partial[k * 2LL * channels + c];
    }
    const double mean = sum_rows(sum, shared) / rows;

    double squares = 0;
    for (int k = mine; k < chunks; k += blockDim.y) {
        const double count = min((INDEX)chunk, rows - k * (INDEX)chunk);
        const double d = partial[k * 2LL * channels + c] - mean;
        squares += partial[(k * 2LL + 1) * channels + c] + count * d * d;
    }
    const double variance = sum_rows(squares, shared) / rows;
    if (threadIdx.y == 0 && c < channels) {
        const REAL near = mean;
        statistics[c] = near;
        statistics[channels + c] = mean - near;
        statistics[2LL * channels + c] = variance;
        statistics[3LL * channels + c] = 1 / sqrt(variance + eps);
    }
}

extern "C" __global__ void BOUNDS batch_norm_apply(
    const REAL* __restrict__ x, const REAL* __restrict__ gamma, const REAL* __restrict__ beta,
    const REAL* __restrict__ statistics, REAL* __restrict__ y,
    INDEX rows, int channels, int chunk, REAL slope)
{
    const int c = own_channel();
    if (c >= channels) return;
    const REAL near = statistics[c], left = statistics[channels + c];
    const REAL scale = gamma[c] * statistics[3LL * channels + c];
    const REAL shift = beta[c] - left * scale;

    const Rows own = own_rows(rows, chunk);
    for (INDEX r = own.first + threadIdx.y; r < own.stop; r += blockDim.y) {
        const REAL v = fma(x[r * channels + c] - near, scale, shift);
        y[r * channels + c] = activation(v, slope);
    }
}

// partial[chunk, 0, c] = sum of g, partial[chunk, 1, c] = sum of g * (x - near)
extern "C" __global__ void BOUNDS batch_norm_backward_sums(
    const REAL* __restrict__ x, const REAL* __restrict__ gy, const REAL* __restrict__ gamma,
    const REAL* __restrict__ beta, const REAL* __restrict__ statistics,
    double* __restrict__ partial, INDEX rows, int channels, int chunk, REAL slope)
{
    __shared__ double shared[THREADS];
    const int c = own_channel();
    const Rows own = own_rows(rows, chunk);
    REAL sum = 0, dots = 0;
    if (c < channels) {
        const REAL near = statistics[c], left = statistics[channels + c];
        const REAL scale = gamma[c] * statistics[3LL * channels + c];
        const REAL shift = beta[c] - left * scale;
        for (INDEX r = own.first + threadIdx.y; r < own.stop; r += blockDim.y) {
            const REAL d = x[r * channels + c] - near;
            const REAL g = gy[r * channels + c] * activation_slope(fma(d, scale, shift), slope);
            sum += g;
            dots += g * d;
        }
    }
    const double all_g = sum_rows(sum, shared), all_dots = sum_rows(dots, shared);
    if (threadIdx.y == 0 && c < channels) {
        partial[(blockIdx.y * 2LL + 0) * channels + c] = all_g;
        partial[(blockIdx.y * 2LL + 1) * channels + c] = all_dots;
    }
}

// gradients[0, c] = of gamma, gradients[1, c] = of beta
extern "C" __global__ void BOUNDS batch_norm_backward_merge(
    const double* __restrict__ partial, const REAL* __restrict__ statistics,
    REAL* __restrict__ gradients, int channels, int chunks)
{
    __shared__ double shared[THREADS];
    const int c = own_channel();
    double sum = 0, dots = 0;
    for (int k = c < channels ? threadIdx.y : chunks; k < chunks; k += blockDim.y) {
        sum += partial[k * 2LL * channels + c];
        dots += partial[(k * 2LL + 1) * channels + c];
    }
    const double g_beta = sum_rows(sum, shared), all_dots = sum_rows(dots, shared);
    if (threadIdx.y == 0 && c < channels) {
        const double left = statistics[channels + c], inv_std = statistics[3LL * channels + c];
        gradients[c] = (all_dots - left * g_beta) * inv_std;
        gradients[channels + c] = g_beta;
    }
}

extern "C" __global__ void BOUNDS batch_norm_backward_apply(
    const REAL* __restrict__ x, const REAL* __restrict__ gy, const REAL* __restrict__ gamma,
    const REAL* __restrict__ beta, const REAL* __restrict__ statistics,
    const REAL* __restrict__ gradients, REAL* __restrict__ gx,
    INDEX rows, int channels, int chunk, REAL slope)
{
    const int c = own_channel();
    if (c >= channels) return;
    const REAL near = statistics[c], left = statistics[channels + c];
    const REAL inv_std = statistics[3LL * channels + c], scale = gamma[c] * inv_std;
    const REAL shift = beta[c] - left * scale;
    const REAL tilt = -inv_std * gradients[c] / rows;           // gx = scale * (g + d*tilt + level)
    const REAL level = -gradients[channels + c] / rows - left * tilt;

    const Rows own = own_rows(rows, chunk);
    for (INDEX r = own.first + threadIdx.y; r < own.stop; r += blockDim.y) {
        const REAL d = x[r * channels + c] - near;
        const REAL g = gy[r * channels + c] * activation_slope(fma(d, scale, shift), slope);
        gx[r * channels + c] = scale * (g + fma(d, tilt, level));
    }
}
