/* cuInit and nothing else. */
__attribute__((visibility("default"))) int cuInit(unsigned flags);
int cuInit(unsigned flags)
{
    return (int)flags;
}
