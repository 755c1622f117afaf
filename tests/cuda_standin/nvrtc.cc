/* NVRTC's place: compiles the text of a kernel for the host.  What stands before the prelude, the machine's own part, is
 * replaced by machine.h; all the rest is compiled as it is.  The code is 8 bytes of mark ("DAVCUBIN", "DAVPTX  "), 8 of the level,
 * 8 of length, a shared object. */
#include <functional>
#include <stdio.h>
#include <stdlib.h>
#include <string>
#include <sys/wait.h>
#include <unistd.h>

#define API extern "C" __attribute__((visibility("default")))

enum { OK = 0, OUT_OF_MEMORY = 1, INVALID_PROGRAM = 4, INVALID_OPTION = 5, COMPILATION = 6 };
static const char prelude_mark[] = "/* What generated kernels call";
static int calls, fails_at = -1;

struct Program { std::string text, object, log; bool ptx; };

/* DAV_STANDIN_NVRTC_FAIL=n makes the n-th call fail. */
static bool fails()
{
    if (fails_at < 0)
        fails_at = getenv("DAV_STANDIN_NVRTC_FAIL") ? atoi(getenv("DAV_STANDIN_NVRTC_FAIL")) : 0;
    return ++calls == fails_at;
}

static bool read_all(const std::string &path, std::string *out)
{
    FILE *f = fopen(path.c_str(), "rb");
    if (!f)
        return false;
    char part[65536];
    for (size_t n; (n = fread(part, 1, sizeof part, f)) > 0;)
        out->append(part, n);
    fclose(f);
    return true;
}

static bool write_all(const std::string &path, const std::string &text)
{
    FILE *f = fopen(path.c_str(), "wb");
    bool ok = f && fwrite(text.data(), 1, text.size(), f) == text.size();
    return f && fclose(f) == 0 && ok;
}

static std::string entries(const std::string &text)
{
    std::string out;
    const std::string mark = "DAV_KERNEL(";
    for (size_t at = text.find(mark); at != std::string::npos; at = text.find(mark, at + 1)) {
        size_t close = text.find(')', at), open = text.find('(', close);
        std::string name = text.substr(close + 1, open - close - 1);
        name = name.substr(name.find_first_not_of(" \n"));
        name = name.substr(0, name.find_last_not_of(" \n") + 1);
        out += "\nextern \"C\" __attribute__((visibility(\"default\"))) void dav_entry_" + name + "(void **p) { dav_call(" + name +
               ", p); }\nextern \"C\" __attribute__((visibility(\"default\"))) const int *const dav_sizes_" + name +
               " = DavSizes<decltype(" + name + ")>::at;\n";
    }
    return out;
}

API int nvrtcVersion(int *major, int *minor) { *major = 13; *minor = STANDIN_STAMP + (getenv("DAV_STANDIN_RACE") != NULL); return fails() ? OUT_OF_MEMORY : OK; }

API int nvrtcCreateProgram(Program **p, const char *text, const char *, int, const char *const *, const char *const *)
{
    if (fails())
        return OUT_OF_MEMORY;
    *p = new Program{text, "", "", false};
    return OK;
}

API int nvrtcDestroyProgram(Program **p)
{
    delete *p;
    *p = NULL;
    return OK;
}

/* sm_N or compute_N, N a level that NVRTC 13 knows; 0: neither. */
static unsigned long long level_asked(int n, const char *const *option, bool *ptx)
{
    static const int known[] = {75, 80, 86, 87, 88, 89, 90, 100, 103, 110, 120, 121};
    int level = 0;
    for (int i = 0; i < n; i++)
        if (sscanf(option[i], "--gpu-architecture=compute_%d", &level) == 1)
            *ptx = true;
        else
            sscanf(option[i], "--gpu-architecture=sm_%d", &level);
    for (int k : known)
        if (k == level)
            return (unsigned long long)level;
    return 0;
}

API int nvrtcCompileProgram(Program *p, int options, const char *const *option)
{
    if (fails())
        return OUT_OF_MEMORY;
    const unsigned long long level = level_asked(options, option, &p->ptx);
    if (!level)
        return INVALID_OPTION;
    if (const char *status = getenv("DAV_STANDIN_NVRTC")) /* of every compilation */
        return p->log = "as DAV_STANDIN_NVRTC says", atoi(status);
    size_t from = p->text.find(prelude_mark);
    if (from == std::string::npos)
        return p->log = "no prelude in the text", INVALID_PROGRAM;
    char dir[] = "/tmp/dav-standin-XXXXXX";
    if (!mkdtemp(dir))
        return OUT_OF_MEMORY;
    std::string base = dir, src = base + "/k.cc", obj = base + "/k.so", log = base + "/log";
    std::string rest = p->text.substr(from);
    if (const char *keep = getenv("DAV_STANDIN_KEEP"))
        write_all(keep, rest);
    if (const char *folder = getenv("DAV_STANDIN_TEXTS")) /* of every text, by its hash */
        write_all(std::string(folder) + "/" + std::to_string(std::hash<std::string>()(p->text)) + ".cu", p->text);
    write_all(src, "#include \"" STANDIN_MACHINE "\"\n" + rest + entries(rest));
    /* Compiled with the hooks that watch memory, linked without the library that they belong to. */
    const char *watch = getenv("DAV_STANDIN_RACE") ? " -fsanitize=thread -DDAV_WATCH_RACES" : "";
    std::string flags = " -std=c++17 -O1 -w -march=native -ffp-contract=off -fno-math-errno -fPIC -DDAV_LEVEL=" + std::to_string(level), half = base + "/k.o";
    std::string cmd = STANDIN_CXX + flags + watch + " -c -o " + half + " " + src + " 2> " + log + " && " STANDIN_CXX " -shared -o " + obj +
                      " " + half + " 2>> " + log;
    int status = system(cmd.c_str());
    read_all(log, &p->log);
    bool ok = status == 0 && read_all(obj, &p->object);
    unlink(half.c_str());
    unlink(src.c_str());
    unlink(obj.c_str());
    unlink(log.c_str());
    rmdir(dir);
    size_t len = p->object.size();
    p->object = (p->ptx ? "DAVPTX  " : "DAVCUBIN") + std::string((const char *)&level, sizeof level) +
                std::string((const char *)&len, sizeof len) + p->object;
    return ok ? OK : COMPILATION;
}

/* There is no cubin of a virtual level; PTX there always is. */
API int nvrtcGetCUBINSize(Program *p, size_t *n) { *n = p->ptx ? 0 : p->object.size(); return fails() ? OUT_OF_MEMORY : OK; }
API int nvrtcGetCUBIN(Program *p, char *to)
{
    p->object.copy(to, p->ptx ? 0 : p->object.size());
    return fails() ? OUT_OF_MEMORY : OK;
}
API int nvrtcGetPTXSize(Program *p, size_t *n) { *n = p->object.size(); return fails() ? OUT_OF_MEMORY : OK; }
API int nvrtcGetPTX(Program *p, char *to)
{
    p->object.replace(0, 8, "DAVPTX  ").copy(to, p->object.size());
    return fails() ? OUT_OF_MEMORY : OK;
}
API int nvrtcGetProgramLogSize(Program *p, size_t *n) { *n = p->log.size() + 1; return OK; }
API int nvrtcGetProgramLog(Program *p, char *to)
{
    p->log.copy(to, p->log.size());
    to[p->log.size()] = 0;
    return OK;
}
API const char *nvrtcGetErrorString(int r)
{
    return r == OK ? "NVRTC_SUCCESS" : r == INVALID_OPTION ? "NVRTC_ERROR_INVALID_OPTION" : r == COMPILATION ? "NVRTC_ERROR_COMPILATION" : r == INVALID_PROGRAM
           ? "NVRTC_ERROR_INVALID_PROGRAM" : "NVRTC_ERROR_OUT_OF_MEMORY";
}
