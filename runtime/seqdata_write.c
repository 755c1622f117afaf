#include "runtime/seqdata.h"
#include <math.h>
#include <string.h>

typedef struct Job {
    Err *err;
    const char *path;
    const SeqData *d;
    void (*format)(Buf *b, const SeqData *d);
    Buf text;
} Job;

static void add_sequence(Buf *b, const SeqData *d, size_t row)
{
    for (size_t i = 0; i < seq_len(d, row); i++)
        buf_add(b, &"ACGT"[seq_at(d, row)[i]], 1);
}

/* A name must not end its field or its line. */
static void add_name(Buf *b, const SeqData *d, size_t row)
{
    if (!d->name) {
        buf_printf(b, "sequence_%zu", row + 1);
        return;
    }
    for (const char *s = d->name[row]; *s; s++)
        buf_add(b, (unsigned char)*s < 0x20 ? " " : s, 1);
}

static void format_fasta(Buf *b, const SeqData *d)
{
    for (size_t i = 0; i < d->n; i++) {
        buf_str(b, ">");
        add_name(b, d, i);
        buf_str(b, "\n");
        add_sequence(b, d, i);
        buf_str(b, "\n");
    }
}

static void format_table(Buf *b, const SeqData *d)
{
    /* the column value is always there: a table of one column could not be told from plain lines */
    buf_printf(b, "%ssequence\tvalue%s\n", d->name ? "name\t" : "", d->component ? "\tcomponent" : "");
    for (size_t i = 0; i < d->n; i++) {
        char value[32] = "NA";
        if (d->name) {
            add_name(b, d, i);
            buf_str(b, "\t");
        }
        add_sequence(b, d, i);
        if (d->value && isfinite(d->value[i]))
            text_f64(value, d->value[i]);
        buf_printf(b, "\t%s", value);
        if (d->component)
            buf_printf(b, "\t%d", d->component[i]);
        buf_str(b, "\n");
    }
}

static bool write_job(void *arg)
{
    Job *j = arg;
    j->format(&j->text, j->d);
    return file_write(j->err, j->path, j->text.at, j->text.len);
}

static bool write_as(Err *err, const char *path, const SeqData *d, void (*format)(Buf *, const SeqData *))
{
    Job j = {.err = err, .path = path, .d = d, .format = format};
    bool ok = mem_protect(err, write_job, &j);
    buf_free(&j.text);
    return ok;
}

bool seqdata_write_fasta(Err *err, const char *path, const SeqData *d)
{
    return write_as(err, path, d, format_fasta);
}

bool seqdata_write_table(Err *err, const char *path, const SeqData *d)
{
    return write_as(err, path, d, format_table);
}
