/* Runs a fuzz target once on every file of a folder, where there is no libFuzzer: one test, reported as cmocka does in TAP. */
#include "base/text.h"
#include <dirent.h>
#include <stdio.h>

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t n);

int main(int argc, char **argv)
{
    DIR *folder = argc == 2 ? opendir(argv[1]) : NULL;
    int files = 0;
    for (struct dirent *entry; folder && (entry = readdir(folder)); ) {
        char path[4096], *bytes;
        size_t len;
        Err err = {0};
        snprintf(path, sizeof path, "%s/%s", argv[1], entry->d_name);
        if (entry->d_name[0] == '.' || !file_read(&err, path, 1 << 24, &bytes, &len))
            continue;
        LLVMFuzzerTestOneInput((const uint8_t *)bytes, len);
        mem_free(bytes);
        files++;
    }
    if (folder)
        closedir(folder);
    printf("1..1\n%s 1 - %d seeds of %s\n", files ? "ok" : "not ok", files, argc == 2 ? argv[1] : "no folder");
    return files ? 0 : 1;
}
