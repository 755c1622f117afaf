/* What the program itself brings; listed in models.c. */
#pragma once
#include <dav/dav.h>

extern const DavModel model_dna_conv, model_seq_cnn, model_tiny_denoiser, model_mpra_dragonn, model_aesthetic_mlp;
extern const DavModel model_seq_transformer;
