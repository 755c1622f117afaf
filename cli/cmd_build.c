/* dav build: compiles one C file that includes <dav/dav.h> into a plugin, and loads it to see that it is one. */
#include "cli/cli.h"
#include "runtime/plugin.h"
#include <errno.h>
#include <spawn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

extern char **environ;

typedef struct BuildJob {
    int argc;
    char **argv;
    Err *err;
    Registry *registry;
} BuildJob;

static bool has_header(char path[4096], const char *folder)
{
    char header[4200];
    snprintf(header, sizeof header, "%.4000s/dav/dav.h", folder);
    snprintf(path, 4096, "%.4000s", folder);
    return file_exists(header);
}

/* The folder of <dav/dav.h>: DAV_INCLUDE_DIR, or beside the program where it is built or installed. */
static bool find_headers(Err *err, char path[4096])
{
    const char *forced = getenv("DAV_INCLUDE_DIR");
    if (forced)
        return has_header(path, forced) || err_user(err, "DAV_INCLUDE_DIR: no dav/dav.h in '%.500s'", forced);
    char exe[3000];
    ssize_t n = readlink("/proc/self/exe", exe, sizeof exe - 1);
    exe[n > 0 ? n : 0] = 0;
    char *slash = strrchr(exe, '/');
    if (slash)
        *slash = 0;
    const char *const beside[] = {"../include", "include", "../../include"};
    for (int i = 0; i < 3; i++) {
        char folder[4000];
        snprintf(folder, sizeof folder, "%s/%s", exe, beside[i]);
        if (has_header(path, folder))
            return true;
    }
    return err_env(err, "dav/dav.h is not beside the program; set DAV_INCLUDE_DIR to the folder that holds it");
}

static bool compile(Err *err, const char *source, const char *out, const char *include)
{
    const char *cc = getenv("CC");
    char flag[4200];
    snprintf(flag, sizeof flag, "-I%s", include);
    cc = cc && *cc ? cc : "cc";
    char *const argv[] = {(char *)cc, "-std=gnu11", "-O1",       "-g",           "-Wall", "-shared", "-fPIC",
                          flag,       "-o",         (char *)out, (char *)source, "-lm",   NULL};
    pid_t pid;
    int status = 0, failed = posix_spawnp(&pid, cc, NULL, NULL, argv, environ);
    if (failed)
        return err_env(err, "the compiler '%.200s' cannot be started: %s", cc, strerror(failed));
    while (waitpid(pid, &status, 0) < 0)
        if (errno != EINTR)
            return err_env(err, "waiting for the compiler: %s", strerror(errno));
    return (WIFEXITED(status) && WEXITSTATUS(status) == 0) || err_user(err, "%s: the compiler refused it", source);
}

static bool build_command(void *arg)
{
    BuildJob *b = arg;
    const char *operand[1], *out = NULL;
    int n;
    char include[4096];
    const CliOption options[] = {{"out", CLI_TEXT, &out, "FILE.so", "the plugin to write (also -o FILE.so)"}};
    const CliUse use = {
        .synopsis = "build FILE.c -o FILE.so",
        .least = 1,
        .most = 1,
        CLI_OPTIONS(options),
        .doc = "Compiles a user's models and objectives (dav/plugin.h) with cc, or with the compiler named by CC."};
    for (int i = 1; i < b->argc; i++) /* what every compiler calls it */
        if (strcmp(b->argv[i], "-o") == 0)
            b->argv[i] = "--out";
    if (!cli_parse(b->err, &use, b->argc, b->argv, operand, &n))
        return false;
    if (!out || !plugin_path(out))
        return err_user(b->err, "-o: expected a name that ends in .so, found '%.200s'; usage: dav %s", out ? out : "",
                        use.synopsis);
    if (!file_exists(operand[0]))
        return err_user(b->err, "%s: no such file", operand[0]);
    return find_headers(b->err, include) && compile(b->err, operand[0], out, include) &&
           registry_load(b->registry, b->err, out);
}

int cmd_build(int argc, char **argv)
{
    Err err = {0};
    BuildJob b = {.argc = argc, .argv = argv, .err = &err, .registry = registry_new()};
    mem_protect(&err, build_command, &b);
    registry_free(b.registry);
    return cli_end(&err);
}
