#include "cli/run_command.h"
#include <stdio.h>
#include <string.h>
#include <unistd.h>

int run_main(int argc, char **argv, bool (*command)(void *run))
{
    Err err = {0};
    RunCommand r = {.argc = argc, .argv = argv, .err = &err, .arena = arena_new(), .registry = registry_new()};
    mem_protect(&err, command, &r);
    progress_end(&r.progress);
    runlog_close(r.log);
    arena_free(r.arena);
    registry_free(r.registry);
    vec_free(r.set);
    vec_free(r.plugins);
    return cli_end(&err);
}

static bool read_settings(RunCommand *r)
{
    char path[4096];
    r->settings = settings_new(r->arena);
    if (r->resume) {
        r->out = r->resume;
        if (!runlog_path(r->err, path, r->resume, "config.yaml") || !settings_read_yaml(r->settings, r->err, path))
            return false;
    } else if (r->config_file && !settings_read_yaml(r->settings, r->err, r->config_file)) {
        return false;
    }
    for (size_t i = 0; i < vec_len(r->set); i++)
        if (!settings_set(r->settings, r->err, r->set[i]))
            return false;
    return settings_set_device(r->settings, r->err, r->device);
}

bool run_parse(RunCommand *r, const CliUse *use, bool needs_data)
{
    const CliOption options[] = {
        {"config", CLI_TEXT, &r->config_file, "FILE", "settings, YAML"},
        {"set", CLI_LIST, &r->set, "KEY=VALUE", "one setting more; may be given again"},
        {"device", CLI_TEXT, &r->device, "DEVICE", "cpu, cuda or cuda:N: the setting device"},
        {"out", CLI_TEXT, &r->out, "RUN", "the run folder to make"},
        {"resume", CLI_TEXT, &r->resume, "RUN", "go on with a run that was interrupted"},
        {"overwrite", CLI_FLAG, &r->overwrite, "", "replace the run that --out holds"},
        {"allow-different-bits", CLI_FLAG, &r->allow_different_bits, "", "resume on another version or processor level"},
        {"plugin", CLI_LIST, &r->plugins, "FILE.so", "a plugin to load first; may be given again"},
        {"data", CLI_TEXT, &r->data, "FILE", "sequences to train on"},
    };
    CliUse full = *use;
    int n;
    full.option = options;
    full.n = (int)(sizeof options / sizeof *options) - !needs_data;
    if (!cli_parse(r->err, &full, r->argc, r->argv, NULL, &n))
        return false;
    if (!r->resume && (!r->config_file || !r->out))
        return err_user(r->err, "--%s is missing; usage: dav %s", r->config_file ? "out" : "config", use->synopsis);
    if (r->resume && (r->config_file || r->out || vec_len(r->set) || r->device))
        return err_user(r->err, "--resume takes its settings from the run: --%s cannot be given with it",
                        r->config_file ? "config" : r->out ? "out" : r->device ? "device" : "set");
    if (needs_data && !r->data)
        return err_user(r->err, "--data is missing; usage: dav %s", use->synopsis);
    return registry_load_all(r->registry, r->err, r->plugins, (int)vec_len(r->plugins)) && read_settings(r);
}

static Checkpoint checkpoint_of(const RunCommand *r, const RunPosition *at)
{
    return (Checkpoint){.dir = r->out, .precision = dav_config_string(r->config, "precision"),
                        .device = dav_config_string(r->config, "device"), .phase = at->phase,
                        .seed = (uint32_t)dav_config_int(r->config, "seed"), .round = *at->round, .step = *at->step,
                        .count = *at->count};
}

static bool write_config(RunCommand *r)
{
    char path[4096];
    Buf text = {0};
    settings_write_yaml(&text, r->config);
    bool ok = runlog_path(r->err, path, r->out, "config.yaml") && file_write(r->err, path, text.at, text.len);
    buf_free(&text);
    return ok;
}

/* A run that was killed before its first checkpoint starts anew. */
bool run_open(RunCommand *r, const RunPosition *at, ParamSet *theta, Optim *optim)
{
    Checkpoint c = checkpoint_of(r, at);
    if (r->resume && state_exists(r->resume)) {
        if (!checkpoint_load(r->err, &c, theta, optim, r->allow_different_bits))
            return false;
        *at->round = c.round;
        *at->step = c.step;
        *at->count = c.count;
    }
    RunStart start = r->resume ? RUN_RESUME : r->overwrite ? RUN_OVERWRITE : RUN_NEW;
    return runlog_open(r->err, r->out, start, c.metrics_offset, c.events_offset, &r->log) && (r->resume || write_config(r));
}

bool run_memory(RunCommand *r, const RowProgram *const *program, int n, bool fresh)
{
    fprintf(stderr, "memory ");
    for (int i = 0; i < n; i++) {
        ProgramStats s = program_stats(program[i]->program);
        fprintf(stderr, " %s %.1f MB (buffers %.1f)%s", s.name, (double)s.arena_bytes / 1e6, (double)s.unplanned_bytes / 1e6,
                i + 1 < n ? "," : "\n");
    }
    for (int i = 0; i < n; i++) {
        ProgramStats s = program_stats(program[i]->program);
        if (s.memory_note)
            fprintf(stderr, "memory  %s: %s\n", s.name, s.memory_note);
    }
    if (!fresh)
        return true;
    runlog_begin(r->log, "memory");
    for (int i = 0; i < n; i++) {
        ProgramStats s = program_stats(program[i]->program);
        runlog_int(r->log, arena_printf(r->arena, "%s_bytes", s.name), s.arena_bytes);
        runlog_int(r->log, arena_printf(r->arena, "%s_buffers", s.name), s.unplanned_bytes);
        if (s.memory_note)
            runlog_string(r->log, arena_printf(r->arena, "%s_note", s.name), s.memory_note);
    }
    return runlog_end(r->log, r->err, 0);
}

bool run_checkpoint(RunCommand *r, const RunPosition *at, const ParamSet *theta, const Optim *optim)
{
    Checkpoint c = checkpoint_of(r, at);
    return runlog_sync(r->log, r->err, &c.metrics_offset, &c.events_offset) && checkpoint_save(r->err, &c, theta, optim);
}

bool run_publish(RunCommand *r, const DavModel *m, const DavConfig *model_config, const ParamSet *theta, const float *values)
{
    char path[4096];
    const char *weights = m->weights ? m->weights : "diffusion_pytorch_model.safetensors";
    return modeldir_write_config(r->err, r->out, m, model_config) && runlog_path(r->err, path, r->out, weights) &&
           params_save(theta, r->err, path, values);
}
