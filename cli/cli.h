/* The program `dav`: a table of commands (commands.def), and what they share. */
#pragma once
#include "base/text.h"

/* One row of commands.def: cmd_<name> in cmd_<name>.c; argv[0] is the command's name.  Returns the exit status. */
#define COMMAND(name, summary) int cmd_##name(int argc, char **argv);
#include "cli/commands.def"
#undef COMMAND

/* ---- options, declared once: parsing, their errors and --help come from the table ---- */
typedef enum {
    CLI_FLAG, /* bool */
    CLI_TEXT, /* const char * */
    CLI_INT,  /* int64_t */
    CLI_FLOAT, /* double */
    CLI_LIST, /* const char **: a vec, one entry each time the option is given */
} CliKind;

typedef struct CliOption {
    const char *name; /* without its dashes */
    CliKind kind;
    void *into; /* where the value goes; holds the default */
    const char *arg, *meaning;
} CliOption;

typedef struct CliUse {
    const char *synopsis; /* "run DIR --in FILE --out FILE" */
    const char *doc;
    const CliOption *option;
    int n;
    int least, most; /* operands */
} CliUse;

#define CLI_OPTIONS(table) .option = (table), .n = (int)(sizeof(table) / sizeof((table)[0]))

/* Reads argv[1..]; operand has room for use->most.  "--name value" and "--name=value"; "--" ends the options.
 * False: a mistake (in err), or --help was asked for and printed (err is clear). */
bool cli_parse(Err *err, const CliUse *use, int argc, char **argv, const char **operand, int *n);

/* Prints the mistake as one line on stderr and gives the exit status; 0 when there is none. */
int cli_end(const Err *err);
