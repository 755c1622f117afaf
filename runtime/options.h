/* The program's own settings: one table a command, in the reference code's names where it has them. */
#pragma once
#include "runtime/learn.h"
#include "runtime/plugin.h"
#include "runtime/settings.h"

typedef enum { OPTIONS_ALIGN, OPTIONS_PRETRAIN, OPTIONS_COUNT } OptionsTable;
const DavKey *options_table(OptionsTable t, int *n);

/* What belongs to the tables of others and is read with them: the keys of a model that is to be made ("model."), of a search
 * or a loss ("search.NAME.", "train.NAME."). */
typedef struct OptionsExtra { const char *prefix; const DavKey *keys; int n; } OptionsExtra;

/* The table and the extras, filled from settings; paths (see below) are made absolute: those from a file are relative to its
 * folder, those of --set to the working folder. */
DavConfig *options_read(Err *err, Arena *a, OptionsTable t, const OptionsExtra *extra, int n_extra, const Settings *s);

/* The settings of dav align, with the keys of the search and the loss that they name ("search.NAME.", "train.NAME."); those of
 * other registered ones may stand there without effect. */
DavConfig *options_read_align(Err *err, Arena *a, const Registry *r, const Settings *s);
OptionsExtra options_of_search(Arena *a, const DavSearch *s);
OptionsExtra options_of_loss(Arena *a, const DavLoss *l);
/* The keys of one extra as a configuration of its own, without their prefix: what its functions are given. */
const DavConfig *options_part(Err *err, Arena *a, const DavConfig *c, OptionsExtra extra);

/* How programs are compiled under these settings; their rows are those of a setting ("train.micro_batch"). */
BuildOptions options_build(const DavConfig *c, const char *rows_key);
