/* Sequences on the page: coloured letters and the composition of each position. */
#pragma once
#include "runtime/page_data.h"

/* The best of a group by the reward, the first ones when no value is known. */
void page_sequences(Page *p, const PageGroup *g, int most);
/* One logo for each group with samples: letters as high as they are frequent; for alphabets of A, C, G, T only. */
void page_logos(Page *p);
