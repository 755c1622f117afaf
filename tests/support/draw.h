/* Numbers from a counter, the same bits as tests/reference/draw.py. */
#pragma once
#include "runtime/safetensors.h"

/* Fills element by element by the rule of draw.py; t->data must hold the tensor. Floats: offset +- scale; integers: offset + [0, scale). */
void draw_tensor(void *data, const SafeTensor *t, double offset, double scale);
double draw_sign(const char *name, int64_t i); /* +1 or -1: the checksum's weight of element i */

/* Writes the model folder and in.safetensors that from/recipe.txt describes into the folder `to`.  Weights that the recipe takes
 * from a file are linked from the folder data_dir.  False: the recipe needs data_dir and it is NULL. */
bool recipe_materialise(const char *from, const char *to, const char *data_dir);
