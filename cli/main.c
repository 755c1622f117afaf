/* dav COMMAND ...: finds the command in the table and runs it. */
#include "cli/cli.h"
#include <signal.h>
#include <stdio.h>
#include <string.h>

static const struct Command {
    const char *name, *summary;
    int (*run)(int argc, char **argv);
} commands[] = {
#define COMMAND(name, summary) {#name, summary, cmd_##name},
#include "cli/commands.def"
#undef COMMAND
};
enum { COMMANDS = sizeof commands / sizeof commands[0] };

static void print_commands(FILE *f)
{
    fprintf(f, "usage: dav COMMAND ...   (dav COMMAND --help says more)\n");
    for (int i = 0; i < COMMANDS; i++)
        fprintf(f, "  %-10s %s\n", commands[i].name, commands[i].summary);
}

int main(int argc, char **argv)
{
    if (argc < 2) {
        print_commands(stderr);
        return 2;
    }
    if (strcmp(argv[1], "--help") == 0 || strcmp(argv[1], "-h") == 0 || strcmp(argv[1], "help") == 0) {
        print_commands(stdout);
        return 0;
    }
    signal(SIGXFSZ, SIG_IGN); /* a file at its allowed size shows as a failed write, which has a message */
    const char *names[COMMANDS];
    for (int i = 0; i < COMMANDS; i++) {
        names[i] = commands[i].name;
        if (strcmp(argv[1], names[i]) == 0)
            return commands[i].run(argc - 1, argv + 1);
    }
    Err err = {0};
    const char *near = err_nearest(argv[1], names, COMMANDS);
    err_user(&err, "unknown command '%.100s'%s%s%s; dav --help lists them", argv[1], near ? ", did you mean '" : "",
             near ? near : "", near ? "'?" : "");
    return cli_end(&err);
}
