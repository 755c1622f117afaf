/* What pretrain and align share: options, settings, the run folder, checkpoints, its log. */
#pragma once
#include "cli/cli.h"
#include "runtime/checkpoint.h"
#include "runtime/modeldir.h"
#include "runtime/options.h"
#include "runtime/progress.h"
#include "runtime/runlog.h"

typedef struct RunCommand {
    int argc;
    char **argv;
    Err *err;
    Arena *arena;
    Registry *registry;
    Settings *settings;
    DavConfig *config;
    const char *config_file, *data, *out, *resume, *device;
    const char **set, **plugins; /* vec */
    bool overwrite, allow_different_bits;
    RunLog *log;
    Progress progress;
} RunCommand;

int run_main(int argc, char **argv, bool (*command)(void *run));
/* Options and settings (of --config, or of the run that is resumed); loads plugins.  needs_data: --data is required. */
bool run_parse(RunCommand *r, const CliUse *use, bool needs_data);

/* The position of a run: what its checkpoint holds beside tensors. */
typedef struct RunPosition { StatePhase phase; int64_t *round, *step; Counters *count; } RunPosition;
/* Makes the folder and its log; or takes up where the checkpoint left off and fills theta, optim and the position. */
bool run_open(RunCommand *r, const RunPosition *at, ParamSet *theta, Optim *optim);
/* What memory the programs were given: on stderr and, when the run is new, as a row "memory". */
bool run_memory(RunCommand *r, const RowProgram *const *program, int n, bool fresh);
bool run_checkpoint(RunCommand *r, const RunPosition *at, const ParamSet *theta, const Optim *optim);
/* Writes config.json and the weights: the run folder is a model folder too. */
bool run_publish(RunCommand *r, const DavModel *m, const DavConfig *model_config, const ParamSet *theta, const float *values);
