/* dav align: EM alignment of a pretrained denoiser with a reward. */
#include "cli/judge.h"
#include "cli/run_command.h"
#include "runtime/page.h"
#include <math.h>
#include <stdio.h>

typedef struct Align {
    RunCommand *r;
    Aligner *a;
    Buf table; /* what is printed at the end */
    int64_t step;
    Counters count;
    RunPosition at;
} Align;

static void log_counts(RunLog *log, Counters c)
{
    runlog_int(log, "forwards", c.forwards);
    runlog_int(log, "vjps", c.vjps);
    runlog_int(log, "reward_forwards", c.reward_forwards);
    runlog_int(log, "reward_vjps", c.reward_vjps);
    runlog_int(log, "p0_forwards", c.p0_forwards);
}

/* n sequences of the model (or of the search on it), judged; kept as samples/NAME.fasta. */
static bool judge_samples(Align *l, Arena *arena, const char *name, const char *stream, int64_t n, bool searched, Judgement *j)
{
    RunCommand *r = l->r;
    char path[4096];
    Trajectories *t = aligner_sample(l->a, r->err, stream, (uint32_t)l->a->rounds_done, 0, n, searched);
    if (!t)
        return false;
    SeqData *d = trajectories_sequences(arena, t);
    trajectories_free(t);
    return aligner_judge(l->a, r->err, arena, d, j) && runlog_samples_path(r->err, path, r->out, name) &&
           seqdata_write_fasta(r->err, path, d);
}

static void log_bound(RunLog *log, const Bound *b)
{
    runlog_number(log, "elbo", b->elbo);
    runlog_number(log, "elbo_se", b->elbo_se);
    runlog_number(log, "elbo_undiscounted", b->undiscounted);
    runlog_number(log, "elbo_undiscounted_se", b->undiscounted_se);
}

/* The bounds on fresh trajectories, where eval.elbo asks for them, into the open row. */
static bool log_fresh_bound(Align *l)
{
    int64_t n = dav_config_int(l->r->config, "eval.elbo");
    Bound b;
    if (!n)
        return true;
    if (!aligner_bound(l->a, l->r->err, n, &b))
        return false;
    log_bound(l->r->log, &b);
    return true;
}

/* A row "eval" with the whole distribution, for the page, and a row of the table. */
static bool evaluate(Align *l, const char *name, int64_t n, bool searched)
{
    RunCommand *r = l->r;
    Arena *arena = arena_new();
    Judgement j;
    Counters before = aligner_count(l->a);
    bool ok = judge_samples(l, arena, name, searched ? "posterior" : "eval", n, searched, &j);
    Counters c = aligner_count(l->a);
    if (ok) {
        runlog_begin(r->log, "eval");
        runlog_string(r->log, "name", name);
        judge_log(r->log, &j);
        runlog_number(r->log, "gain", judge_gain(l->a, &j));
        ok = l->a->rounds_done > 0 || searched || log_fresh_bound(l);
    }
    if (ok) {
        log_counts(r->log, (Counters){c.forwards - before.forwards, c.vjps - before.vjps, c.reward_forwards - before.reward_forwards,
                                      c.reward_vjps - before.reward_vjps, c.p0_forwards - before.p0_forwards});
        if (j.reward)
            runlog_numbers(r->log, "reward", j.reward, j.n);
        if (j.heldout)
            runlog_numbers(r->log, "heldout", j.heldout, j.n);
        ok = runlog_end(r->log, r->err, l->a->rounds_done);
        judge_row(&l->table, name, l->a, &j);
    }
    arena_free(arena);
    return ok;
}

/* Of a resumed run: the row of the table that was printed before it was interrupted. */
static bool row_of_before(Align *l)
{
    Judgement j = {0};
    bool found;
    if (!judge_read(l->r->err, l->r->out, "before", &j, &found))
        return false;
    if (found)
        judge_row(&l->table, "before", l->a, &j);
    return true;
}

/* What the reference table knows of real promoters, as a row of its own. */
static bool log_real(Align *l)
{
    const SeqRef *ref = l->a->reference;
    if (!ref)
        return true;
    static const char *const name[][2] = {{"reward.test", "reward"}, {"heldout.test", "heldout"}};
    const double *gc = seqref_get(ref, "gc.all", SEQREF_QUANTILES);
    runlog_begin(l->r->log, "eval");
    runlog_string(l->r->log, "name", "real");
    for (int i = 0; i < 2; i++) {
        const double *q = seqref_get(ref, name[i][0], SEQREF_QUANTILES);
        if (!q)
            continue;
        runlog_numbers(l->r->log, name[i][1], q, SEQREF_QUANTILES);
        runlog_number(l->r->log, i ? "heldout_median" : "reward_median", q[SEQREF_QUANTILES / 2]);
    }
    if (gc)
        runlog_number(l->r->log, "gc", gc[SEQREF_QUANTILES / 2]);
    return runlog_end(l->r->log, l->r->err, 0);
}

static bool checkpoint(Align *l)
{
    l->count = aligner_count(l->a);
    return run_checkpoint(l->r, &l->at, l->a->theta, l->a->optim);
}

static bool log_round(Align *l, const RoundReport *rep, const Judgement *j)
{
    RunLog *log = l->r->log;
    runlog_begin(log, "round");
    runlog_int(log, "round", rep->round);
    log_bound(log, &rep->bound);
    runlog_number(log, "ess", rep->bound.ess);
    runlog_number(log, "loss", rep->mstep.loss);
    if (dav_config_float(l->r->config, "train.train_kl") > 0)
        runlog_number(log, "kl", rep->mstep.kl);
    runlog_number(log, "grad_norm", rep->mstep.grad_norm);
    runlog_int(log, "updates", rep->mstep.updates);
    judge_log(log, j);
    log_counts(log, aligner_count(l->a));
    return runlog_end(log, l->r->err, rep->round);
}

/* One round, judged and kept.  With eval.elbo the bounds are those of the model after the round, on fresh trajectories;
 * else those of the model before it, on the E-step's. */
static bool one_round(Align *l)
{
    RunCommand *r = l->r;
    int64_t fresh = dav_config_int(r->config, "eval.elbo");
    RoundReport rep;
    if (!aligner_round(l->a, r->err, &rep) ||
        (fresh && !aligner_bound(l->a, r->err, fresh, &rep.bound)))
        return false;
    Arena *arena = arena_new();
    Judgement j;
    bool ok = judge_samples(l, arena, arena_printf(arena, "round-%04lld", (long long)rep.round), "eval",
                            dav_config_int(r->config, "eval.samples"), false, &j) &&
              log_round(l, &rep, &j) && runlog_seconds(r->log, r->err, rep.round, rep.seconds) && checkpoint(l);
    if (ok) {
        progress_label(&r->progress, "round %lld", (long long)rep.round);
        progress_note(&r->progress, "elbo %.2f +- %.2f  ESS %.1f  loss %.2f  reward %.2f  held-out %.2f", rep.bound.elbo,
                      rep.bound.elbo_se, rep.bound.ess, rep.mstep.loss, j.reward_median.at, j.heldout_median.at);
        progress_line(&r->progress);
        progress_add(&r->progress, 1);
    }
    arena_free(arena);
    return ok;
}

static void print_summary(Align *l)
{
    Counters c = aligner_count(l->a);
    Buf head = {0};
    judge_header(&head);
    judge_real(&l->table, l->a);
    printf("%s%s", head.at, l->table.at ? l->table.at : "");
    printf("network evaluations: %lld forwards, %lld VJPs, %lld forwards of the pretrained model; reward: %lld forwards, %lld VJPs\n",
           (long long)c.forwards, (long long)c.vjps, (long long)c.p0_forwards, (long long)c.reward_forwards, (long long)c.reward_vjps);
    printf("page: %s/index.html\n", l->r->out);
    buf_free(&head);
}

static bool run(Align *l)
{
    RunCommand *r = l->r;
    int64_t rounds = dav_config_int(r->config, "num_epochs"), samples = dav_config_int(r->config, "eval.samples"),
            posterior = dav_config_int(r->config, "eval.posterior");
    bool fresh = l->a->rounds_done == 0 && !state_exists(r->out);
    const RowProgram *programs[ALIGNER_PROGRAMS];
    if (!run_memory(r, programs, aligner_programs(l->a, programs), fresh))
        return false;
    progress_begin(&r->progress, stderr, rounds, l->a->rounds_done);
    if (fresh ? !log_real(l) || !evaluate(l, "before", samples, false) || !checkpoint(l) : !row_of_before(l))
        return false;
    while (l->a->rounds_done < rounds)
        if (!one_round(l))
            return false;
    return evaluate(l, "after", samples, false) && (!posterior || !l->a->search || evaluate(l, "posterior", posterior, true)) &&
           checkpoint(l) && run_publish(r, l->a->model.model, l->a->model.config, l->a->theta, l->a->theta->value) &&
           runlog_finish(r->log, r->err) && page_write(r->err, r->out, NULL);
}

static bool align_command(void *arg)
{
    RunCommand *r = arg;
    const CliUse use = {.synopsis = "align --config FILE [--set KEY=VALUE ...] --out RUN   or   align --resume RUN",
                        .doc = "Aligns a pretrained denoiser with a reward; RUN becomes a model folder with a page."};
    if (!run_parse(r, &use, false) || !(r->config = options_read_align(r->err, r->arena, r->registry, r->settings)))
        return false;
    Align l = {.r = r, .a = aligner_open(r->err, r->registry, r->config)};
    if (!l.a)
        return false;
    if (!aligner_has_reward(l.a))
        return err_user(r->err, "settings: align needs a reward: reward.model or reward.command");
    l.at = (RunPosition){STATE_ALIGN, &l.a->rounds_done, &l.step, &l.count};
    bool ok = run_open(r, &l.at, l.a->theta, l.a->optim);
    l.a->count = l.count;
    ok = ok && run(&l);
    if (ok)
        print_summary(&l);
    buf_free(&l.table);
    aligner_close(l.a);
    return ok;
}

int cmd_align(int argc, char **argv)
{
    return run_main(argc, argv, align_command);
}
