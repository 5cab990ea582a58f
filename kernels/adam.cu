// Adam (Kingma and Ba 2015, algorithm 1) on all parameters of a network at once.
//
//   g' = g + decay * p                  weight decay in the gradient (Adam)
//   p' = p * shrink                     or apart from it (AdamW: shrink = 1 - lr * decay); else 1
//   m <- beta1 * m + (1 - beta1) * g';  v <- beta2 * v + (1 - beta2) * g'^2
//   p <- p' - rate * m / (sqrt(v) * correction + eps)
//   with rate = lr / (1 - beta1^t) and correction = 1 / sqrt(1 - beta2^t), the t-th step.
//
// Twin:     minigan/twins.py, adam_step
// Launch:   block (256), ITEMS numbers for each thread; a tensor has as many blocks as it needs, and
//           `first_block` says where each begins. One launch for up to TENSORS tensors: the table of
//           pointers and sizes travels with the launch, by value (4 kB is what a launch can carry),
//           and so costs no copy to the device.
// Bytes:    reads p, g, m, v and writes p, m, v: 28 bytes a float32, the least possible.
// Saves:    plain CuPy takes 14 launches for every tensor, 24 passes over arrays of its size. For the
//           small ones, biases and batch norms, the launches are all of the time.

#define TENSORS 80
#define ITEMS 16

struct Table {
    REAL* p[TENSORS];
    const REAL* g[TENSORS];
    REAL* m[TENSORS];
    REAL* v[TENSORS];
    long long size[TENSORS];
    int first_block[TENSORS + 1];
};

extern "C" __global__ void BOUNDS adam_step(
    const Table table, int tensors, REAL rate, REAL correction, REAL beta1, REAL beta2,
    REAL gain1, REAL gain2, REAL eps, REAL decay, REAL shrink)  // gain1 = 1 - beta1, gain2 = 1 - beta2
{
    int low = 0, high = tensors;  // the last tensor whose first block is not behind this one
    while (high - low > 1) {
        const int middle = (low + high) / 2;
        if (table.first_block[middle] <= (int)blockIdx.x) low = middle; else high = middle;
    }
    REAL* p = table.p[low];
    REAL* m = table.m[low];
    REAL* v = table.v[low];
    const REAL* g = table.g[low];
    const long long begin = (blockIdx.x - table.first_block[low]) * (long long)(THREADS * ITEMS);
    const long long stop = min(begin + THREADS * ITEMS, table.size[low]);

    for (long long i = begin + threadIdx.x; i < stop; i += THREADS) {
        const REAL old = p[i], gi = decay == 0 ? g[i] : g[i] + decay * old;  // 0 * infinity is NaN
        const REAL mi = beta1 * m[i] + gain1 * gi;
        const REAL vi = beta2 * v[i] + gain2 * gi * gi;
        m[i] = mi;
        v[i] = vi;
        p[i] = old * shrink - rate * (mi / (sqrt(vi) * correction + eps));
    }
}
