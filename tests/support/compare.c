#include "support/compare.h"
#include <math.h>
#include <string.h>

static double element(const SafeTensor *t, int64_t i)
{
    return t->dtype == DAV_F64   ? ((const double *)t->data)[i]
           : t->dtype == DAV_F32 ? (double)((const float *)t->data)[i]
                                 : NAN;
}

static double disagreement(const SafeTensor *out, const SafeTensor *want)
{
    double worst = 0, most = 0;
    if (!out || safetensor_count(out) != safetensor_count(want))
        return INFINITY;
    for (int64_t i = 0; i < safetensor_count(want); i++) {
        double b = element(want, i), gap = fabs(element(out, i) - b);
        worst = fmax(worst, isnan(gap) ? INFINITY : gap);
        most = fmax(most, fabs(b));
    }
    return worst / (most + 1e-6);
}

double compare_files(const SafeTensors *out, const SafeTensors *want, const char *skip, const char **name)
{
    double worst = 0;
    *name = "";
    for (size_t i = 0; i < want->n; i++) {
        const SafeTensor *w = &want->tensor[i];
        double d = skip && strstr(w->name, skip) ? 0 : disagreement(safetensors_find(out, w->name), w);
        if (d > worst) {
            worst = d;
            *name = w->name;
        }
    }
    return worst;
}
