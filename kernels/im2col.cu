// im2col: every window of every image, copied out as a row of a matrix.
//
//   columns[g, (n, oh, ow), (kh, kw, c)] = x[n, oh*stride_h - padding_h + kh*dilation_h,
//                                               ow*stride_w - padding_w + kw*dilation_w, g, c]
//   or 0 outside of the image. x is (N, H, W, G*C), columns (G, N*OH*OW, KH*KW*C): what the matrix
//   product with the weights wants, with no transpose.
//
// Twin:     minigan/twins.py, im2col
// Launch:   block (lanes, 256 / lanes), a row of the matrix for each threadIdx.y; its lanes, at most
//           32, walk along the row together. grid (rows / blockDim.y).
// Bytes:    writes columns once, reads as much, nearly all of it from the cache, since a pixel is in
//           KH*KW / (stride_h*stride_w) windows: from memory x once. Nothing less makes columns.
// Saves:    plain CuPy makes a padded copy of x first (one more read and write of x), then copies
//           from a six-dimensional view, with a division for every axis of every element. Here the
//           padding is a comparison, and the divisions are done once a row.

extern "C" __global__ void BOUNDS im2col(
    const REAL* __restrict__ x, REAL* __restrict__ columns,
    INDEX images, int height, int width, int groups, int channels,
    int out_height, int out_width, int kernel_h, int kernel_w,
    int stride_h, int stride_w, int padding_h, int padding_w, int dilation_h, int dilation_w)
{
    const INDEX rows = images * out_height * out_width;  // of each group
    const INDEX line = own_row();
    if (line >= rows * groups) return;

    const INDEX group = line / rows, row = line % rows;
    const INDEX image = row / ((INDEX)out_height * out_width);
    const int window = row % ((INDEX)out_height * out_width);
    const int top = window / out_width * stride_h - padding_h;
    const int left = window % out_width * stride_w - padding_w;

    const INDEX pixel = (INDEX)groups * channels;  // numbers in a pixel of x
    const REAL* from = x + image * height * width * pixel + group * channels;
    const INDEX length = (INDEX)kernel_h * kernel_w * channels;
    REAL* to = columns + line * length;

    int c = threadIdx.x % channels;
    int kw = threadIdx.x / channels % kernel_w, kh = threadIdx.x / channels / kernel_w;
    for (INDEX k = threadIdx.x; k < length; k += blockDim.x) {
        const int h = top + kh * dilation_h, w = left + kw * dilation_w;
        const bool inside = h >= 0 && h < height && w >= 0 && w < width;
        to[k] = inside ? from[((INDEX)h * width + w) * pixel + c] : (REAL)0;
        for (c += blockDim.x; c >= channels; c -= channels)  // blockDim.x numbers further
            if (++kw == kernel_w) { kw = 0; ++kh; }
    }
}
