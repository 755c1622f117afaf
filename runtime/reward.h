/* Rewards that live outside of the graph: a C callback of a plugin, or a process fed on its standard input. */
#pragma once
#include "base/text.h"

typedef struct Reward Reward;

/* letters: [n, L] in 0..V-1.  Writes n finite numbers. */
typedef bool (*RewardFn)(void *ctx, Err *err, int64_t n, int64_t length, const int64_t *letters, double *values);

Reward *reward_from_function(const char *name, RewardFn fn, void *ctx, void (*close)(void *ctx));
/* What a process is sent of a batch: FASTA records (>0, >1, ...; A C G T, else N) ended by an empty line; or raw: n and length
 * as 64-bit integers, then n * length bytes, a letter each (the machine's byte order). */
typedef enum RewardFormat { REWARD_FASTA, REWARD_RAW } RewardFormat;
/* A command run by /bin/sh -c.  It is sent batches and answers one number a line, in order.  timeout_s bounds the wait for each
 * batch. */
Reward *reward_from_command(Err *err, const char *command, RewardFormat format, double timeout_s);
void reward_free(Reward *r); /* NULL is fine */
const char *reward_name(const Reward *r);
/* A reward that dies, is silent for too long, or answers something that is no finite number gives an error and no values. */
bool reward_batch(Reward *r, Err *err, int64_t n, int64_t length, const int64_t *letters, float *values);
int64_t reward_calls(const Reward *r); /* sequences scored so far */
