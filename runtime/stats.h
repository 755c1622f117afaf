/* Statistics of samples.  Everything is deterministic: resampling uses its own fixed generator, seeded by the caller. */
#pragma once
#include "base/mem.h"

typedef struct Interval { double at, low, high; } Interval; /* an estimate and its confidence interval */

double stats_mean(const double *x, size_t n);
double stats_sd(const double *x, size_t n);   /* of a sample: divides by n - 1; 0 for n < 2 */
double stats_pearson(const double *x, const double *y, size_t n); /* NAN when one of them is constant */
void stats_sort(double *x, size_t n);         /* ascending, NANs last */
/* Quantile p in [0, 1] of ascending x, n >= 1: linear between order statistics (NumPy's default, Hyndman and Fan's type 7). */
double stats_quantile(const double *sorted, size_t n, double p);

/* Confidence intervals; `confidence` in (0, 1), for example 0.95. */
Interval stats_mean_interval(const double *x, size_t n, double confidence); /* normal approximation */
/* The median with the narrowest symmetric pair of order statistics that covers it with at least this confidence,
 * by the binomial law: free of assumptions.  Too few samples for it: the whole range. */
Interval stats_median_interval(const double *sorted, size_t n, double confidence);

/* Percentile bootstrap: `statistic` of rows drawn with replacement (row[0..n-1]); `at` is its value on all rows. */
typedef double (*StatsOfRows)(void *arg, const size_t *row, size_t n);
Interval stats_bootstrap(Arena *scratch, size_t n, StatsOfRows statistic, void *arg, int replicates, double confidence, uint64_t seed);

/* Mean of x and its standard error when rows of one cluster are not independent (cluster-robust: sums of deviations by
 * cluster, factor G / (G - 1) for G clusters).  For paired comparisons x is the difference.  `cluster` values are >= 0. */
typedef struct ClusteredMean { double mean, se; size_t clusters; } ClusteredMean;
ClusteredMean stats_clustered_mean(Arena *scratch, const double *x, const int32_t *cluster, size_t n);

double stats_normal_quantile(double p); /* of the standard normal law, p in (0, 1) */

/* splitmix64 (Steele, Lea and Flood 2014): the generator of the above, and its finaliser alone. */
uint64_t splitmix64_mix(uint64_t z);
uint64_t splitmix64(uint64_t *state);
size_t splitmix64_below(uint64_t *state, size_t n); /* uniform in 0..n-1, n >= 1 */
