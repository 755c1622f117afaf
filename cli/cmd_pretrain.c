/* dav pretrain: a denoiser or an oracle trained from data. */
#include "cli/run_command.h"
#include "runtime/pretrainer.h"
#include <stdio.h>

static bool log_step(RunCommand *r, const Pretrainer *p, const StepReport *s, const double *validation)
{
    runlog_begin(r->log, "step");
    runlog_int(r->log, "step", p->step);
    runlog_number(r->log, "loss", s->loss);
    runlog_number(r->log, "lr", s->lr);
    runlog_number(r->log, "grad_norm", s->grad_norm);
    if (validation)
        runlog_number(r->log, p->regression ? "val_pearson" : "val_nats", *validation);
    progress_note(&r->progress, "loss %.4f", s->loss);
    if (validation) {
        progress_label(&r->progress, "step %lld", (long long)p->step);
        progress_note(&r->progress, p->regression ? "loss %.4f  validation Pearson %.4f" : "loss %.4f  validation %.4f nats/base",
                      s->loss, *validation);
        progress_line(&r->progress);
    }
    return runlog_end(r->log, r->err, p->step);
}

static bool train(RunCommand *r, Pretrainer *p, const RunPosition *at)
{
    int64_t steps = dav_config_int(r->config, "train.steps"), every = dav_config_int(r->config, "eval.every"),
            keep = dav_config_int(r->config, "checkpoint.every");
    if (!run_memory(r, (const RowProgram *const[]){p->learner, p->judge}, 2, p->step == 0))
        return false;
    progress_begin(&r->progress, stderr, steps, p->step);
    while (p->step < steps) {
        StepReport s;
        double validation;
        if (!pretrainer_step(p, r->err, &s))
            return false;
        bool last = p->step == steps, judged = last || p->step % every == 0;
        if (judged && !pretrainer_validate(p, r->err, &validation))
            return false;
        if ((judged || p->step % 50 == 0) && !log_step(r, p, &s, judged ? &validation : NULL))
            return false;
        progress_add(&r->progress, 1);
        if ((last || p->step % keep == 0) && !run_checkpoint(r, at, p->theta, p->optim))
            return false;
    }
    return true;
}

static bool pretrain_command(void *arg)
{
    RunCommand *r = arg;
    const CliUse use = {.synopsis = "pretrain --config FILE --data FILE --out RUN   or   pretrain --resume RUN --data FILE",
                        .doc = "Trains the model that the settings name; RUN becomes a model folder."};
    if (!run_parse(r, &use, true))
        return false;
    const char *name = settings_get(r->settings, "model.name");
    if (!name)
        return err_user(r->err, "settings: model.name is missing; dav list models lists them");
    const DavModel *m = registry_model_of(r->registry, r->err, "model.name", name);
    if (!m)
        return false;
    const OptionsExtra own = {"model.", m->keys, m->n_keys}; /* model.name is the program's */
    r->config = options_read(r->err, r->arena, OPTIONS_PRETRAIN, &own, 1, r->settings);
    const DavConfig *mc = r->config ? options_part(r->err, r->arena, r->config, own) : NULL;
    Pretrainer *p = mc ? pretrainer_open(r->err, m, mc, r->config, r->data) : NULL;
    if (!p)
        return false;
    int64_t round = 0;
    const RunPosition at = {STATE_PRETRAIN, &round, &p->step, &p->count};
    bool ok = run_open(r, &at, p->theta, p->optim) && train(r, p, &at) && run_publish(r, m, mc, p->theta, p->optim->ema) &&
              runlog_finish(r->log, r->err);
    pretrainer_close(p);
    return ok;
}

int cmd_pretrain(int argc, char **argv)
{
    return run_main(argc, argv, pretrain_command);
}
