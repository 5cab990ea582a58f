// col2im: the adjoint of im2col. Every number of a window is added back where it came from.
//
//   x[n, h, w, g, c] = sum of columns[g, (n, oh, ow), (kh, kw, c)] over all windows (oh, ow) and
//   places in them (kh, kw) with  oh*stride_h - padding_h + kh*dilation_h = h, and so for w.
//   The size of x is given: pixels that no window covers, left over at the edge, get 0.
//
// Twin:     minigan/twins.py, col2im
// Launch:   block (lanes, 256 / lanes), a pixel of x for each threadIdx.y, its channels along x.
//           grid (pixels / blockDim.y).
// How:      as a gather. A thread asks which windows cover its pixel and sums them, always in the
//           same order: no atomics, and the same result to the bit in every run.
// Bytes:    reads columns once (but for what falls into the gaps of a stride larger than the
//           kernel) and writes x once: the least possible.
// Saves:    plain CuPy adds KH*KW strided slices, one after another, each with a read and a write
//           of the part of x that it lands on: 16 launches for a 4x4 kernel and, at stride 2, four
//           more passes over x each way, after filling x with zeros.

extern "C" __global__ void BOUNDS col2im(
    const REAL* __restrict__ columns, REAL* __restrict__ x,
    INDEX images, int height, int width, int groups, int channels,
    int out_height, int out_width, int kernel_h, int kernel_w,
    int stride_h, int stride_w, int padding_h, int padding_w, int dilation_h, int dilation_w)
{
    const INDEX pixel = own_row();
    if (pixel >= images * height * width) return;

    const INDEX image = pixel / ((INDEX)height * width);
    const int within = pixel % ((INDEX)height * width);
    const int h = within / width + padding_h, w = within % width + padding_w;  // in the padded image

    // Windows oh with  0 <= h - oh*stride_h < span_h,  and the same across.
    const int span_h = (kernel_h - 1) * dilation_h + 1, span_w = (kernel_w - 1) * dilation_w + 1;
    const int first_oh = h < span_h ? 0 : (h - span_h) / stride_h + 1;
    const int first_ow = w < span_w ? 0 : (w - span_w) / stride_w + 1;
    const int last_oh = min(h / stride_h, out_height - 1);
    const int last_ow = min(w / stride_w, out_width - 1);

    const INDEX rows = images * out_height * out_width, length = (INDEX)kernel_h * kernel_w * channels;
    for (int c = threadIdx.x; c < groups * channels; c += blockDim.x) {
        const REAL* from = columns + c / channels * rows * length + c % channels;
        REAL sum = 0;
        for (int oh = first_oh; oh <= last_oh; ++oh) {
            const int down = h - oh * stride_h, kh = down / dilation_h;
            if (kh * dilation_h != down) continue;  // in a gap of a dilated window
            #pragma unroll 2  // as often as a 4x4 window at stride 2 goes round; 4 take more registers
            for (int ow = first_ow; ow <= last_ow; ++ow) {
                const int across = w - ow * stride_w, kw = across / dilation_w;
                if (kw * dilation_w != across) continue;
                const INDEX row = (image * out_height + oh) * out_width + ow;
                sum += from[row * length + (kh * kernel_w + kw) * channels];
            }
        }
        x[pixel * groups * channels + c] = sum;
    }
}
