#include "runtime/stats.h"
#include <math.h>
#include <stdlib.h>
#include <string.h>

uint64_t splitmix64_mix(uint64_t z)
{
    z = (z ^ z >> 30) * UINT64_C(0xBF58476D1CE4E5B9);
    z = (z ^ z >> 27) * UINT64_C(0x94D049BB133111EB);
    return z ^ z >> 31;
}

uint64_t splitmix64(uint64_t *state)
{
    *state += UINT64_C(0x9E3779B97F4A7C15);
    return splitmix64_mix(*state);
}

size_t splitmix64_below(uint64_t *state, size_t n)
{
    return (size_t)((unsigned __int128)splitmix64(state) * n >> 64); /* bias below n / 2^64 */
}

double stats_mean(const double *x, size_t n)
{
    double sum = 0;
    for (size_t i = 0; i < n; i++)
        sum += x[i];
    return n ? sum / (double)n : NAN;
}

double stats_sd(const double *x, size_t n)
{
    double mean = stats_mean(x, n), sum = 0;
    for (size_t i = 0; i < n; i++)
        sum += (x[i] - mean) * (x[i] - mean);
    return n > 1 ? sqrt(sum / (double)(n - 1)) : 0;
}

double stats_pearson(const double *x, const double *y, size_t n)
{
    double mx = stats_mean(x, n), my = stats_mean(y, n), xx = 0, yy = 0, xy = 0;
    for (size_t i = 0; i < n; i++) {
        xx += (x[i] - mx) * (x[i] - mx);
        yy += (y[i] - my) * (y[i] - my);
        xy += (x[i] - mx) * (y[i] - my);
    }
    return xx > 0 && yy > 0 ? xy / sqrt(xx * yy) : NAN;
}

static int ascending(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    if (isnan(x) || isnan(y))
        return (isnan(x) != 0) - (isnan(y) != 0);
    return (x > y) - (x < y);
}

void stats_sort(double *x, size_t n)
{
    qsort(x, n, sizeof *x, ascending);
}

double stats_quantile(const double *sorted, size_t n, double p)
{
    double at = p * (double)(n - 1);
    size_t i = (size_t)at;
    if (i + 1 >= n)
        return sorted[n - 1];
    return sorted[i] + (at - (double)i) * (sorted[i + 1] - sorted[i]);
}

/* Bisection on erfc: a few dozen steps, exact to rounding, nothing to tabulate. */
double stats_normal_quantile(double p)
{
    double low = -40, high = 40;
    for (int i = 0; i < 100; i++) {
        double mid = (low + high) / 2;
        if (0.5 * erfc(-mid / sqrt(2)) < p)
            low = mid;
        else
            high = mid;
    }
    return (low + high) / 2;
}

Interval stats_mean_interval(const double *x, size_t n, double confidence)
{
    double mean = stats_mean(x, n), half = stats_normal_quantile(0.5 + confidence / 2) * stats_sd(x, n) / sqrt((double)n);
    return (Interval){mean, mean - half, mean + half};
}

/* The median lies between the l-th smallest and the l-th largest of n unless fewer than l fall on one side of it:
 * twice P(Binomial(n, 1/2) <= l - 1).  The largest l for which that is at most 1 - confidence. */
Interval stats_median_interval(const double *sorted, size_t n, double confidence)
{
    double below = 0;
    size_t l = 0;
    while (l < (n + 1) / 2) {
        double k = (double)l, m = (double)n; /* adds P(B = l) to P(B < l) */
        below += exp(lgamma(m + 1) - lgamma(k + 1) - lgamma(m - k + 1) - m * log(2));
        if (2 * below > 1 - confidence)
            break;
        l++;
    }
    size_t low = l ? l - 1 : 0;
    return (Interval){stats_quantile(sorted, n, 0.5), sorted[low], sorted[n - 1 - low]};
}

Interval stats_bootstrap(Arena *scratch, size_t n, StatsOfRows statistic, void *arg, int replicates, double confidence, uint64_t seed)
{
    size_t *row = arena_array(scratch, size_t, n);
    double *value = arena_array(scratch, double, replicates);
    for (size_t i = 0; i < n; i++)
        row[i] = i;
    double at = statistic(arg, row, n);
    for (int r = 0; r < replicates; r++) {
        for (size_t i = 0; i < n; i++)
            row[i] = splitmix64_below(&seed, n);
        value[r] = statistic(arg, row, n);
    }
    stats_sort(value, (size_t)replicates);
    return (Interval){at, stats_quantile(value, (size_t)replicates, 0.5 - confidence / 2),
                      stats_quantile(value, (size_t)replicates, 0.5 + confidence / 2)};
}

ClusteredMean stats_clustered_mean(Arena *scratch, const double *x, const int32_t *cluster, size_t n)
{
    ClusteredMean m = {.mean = stats_mean(x, n)};
    int32_t largest = -1;
    for (size_t i = 0; i < n; i++)
        largest = cluster[i] > largest ? cluster[i] : largest;
    double *sum = arena_array(scratch, double, largest + 1);
    bool *seen = arena_array(scratch, bool, largest + 1);
    for (size_t i = 0; i < n; i++) {
        sum[cluster[i]] += x[i] - m.mean;
        m.clusters += !seen[cluster[i]];
        seen[cluster[i]] = true;
    }
    double square = 0;
    for (int32_t c = 0; c <= largest; c++)
        square += sum[c] * sum[c];
    double g = (double)m.clusters;
    m.se = g > 1 ? sqrt(square * g / (g - 1)) / (double)n : NAN;
    return m;
}
