// What kernels of linear layers share.

// 0: none; 1: ReLU; 2: GELU; 3: SiLU.
#ifndef ACTIVATION
#define ACTIVATION 0
#endif

struct In { const Element *data; u32 stride; u32 unused; };

struct Layer {
    // [inputs, cols]
    In weight;
    // [cols], or absent.
    const float *bias;
    Element *out;
    u32 out_stride, cols;
};

struct Linear {
    In x, gate, residual;
    // Of the norm; absent where it is affine-free.
    const float *norm_weight, *norm_bias;
    Layer layers[4];
    u32 layer_count, rows, inputs;
    float eps;
    // Tiles of columns of all layers.
    u32 tiles, unused;
};

DEVICE float activate(float x) {
#if ACTIVATION == 1
    return fmaxf(x, 0.0f);
#elif ACTIVATION == 2
    return 0.5f * x * erfcf(x * -0.70710678f);
#elif ACTIVATION == 3
    return silu(x);
#else
    return x;
#endif
}

// The layer that a tile of so many columns is of, which becomes its number within the layer.
DEVICE u32 layer_of(const Linear &p, u32 &tile, u32 columns) {
    u32 layer = 0;
    for (; layer + 1 < p.layer_count; layer++) {
        u32 tiles = (p.layers[layer].cols + columns - 1) / columns;
        if (tile < tiles) break;
        tile -= tiles;
    }
    return layer;
}
