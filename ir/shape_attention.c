/* Shape rules of attention and of its gradient. */
#include "ir/build.h"
#include <inttypes.h>

static bool expect(const ShapeCx *cx, int operand, int rank, const int64_t *dim)
{
    char found[160], expected[160];
    Type t = type_of(cx->g, cx->n->arg[operand]), want = type_make(t.dtype, rank, dim);
    if (type_equal(&t, &want))
        return true;
    return err_user(cx->err, "%s: operand %d: expected %s, found %s", op_info[cx->n->op].text, operand, type_text(&want, expected),
                    type_text(&t, found));
}

static bool check(const ShapeCx *cx, int least)
{
    const Node *n = cx->n;
    const char *name = op_info[n->op].text;
    if (n->narg != least && n->narg != least + 1)
        return err_user(cx->err, "%s: expected %d or %d operands, found %d", name, least, least + 1, n->narg);
    Type q = type_of(cx->g, n->arg[0]), k = type_of(cx->g, n->arg[1]), v = type_of(cx->g, n->arg[2]);
    if (q.rank != 3 || k.rank != 3 || v.rank != 3)
        return err_user(cx->err, "%s: expected queries, keys and values of rank 3, found %d, %d, %d", name, q.rank, k.rank, v.rank);
    if (!dav_dtype_is_float(q.dtype) || k.dtype != q.dtype || v.dtype != q.dtype)
        return err_user(cx->err, "%s: expected one float dtype, found %s, %s, %s", name, dav_dtype_name(q.dtype), dav_dtype_name(k.dtype),
                        dav_dtype_name(v.dtype));
    if (type_count(&q) == 0 || type_count(&k) == 0 || type_count(&v) == 0)
        return err_user(cx->err, "%s: an operand is empty", name);
    int64_t b = q.dim[0], l = q.dim[1], s = k.dim[1];
    if (!expect(cx, 1, 3, (int64_t[]){b, s, q.dim[2]}) || !expect(cx, 2, 3, (int64_t[]){b, s, v.dim[2]}))
        return false;
    if (n->narg > least && !expect(cx, least, 3, (int64_t[]){type_of(cx->g, n->arg[least]).dim[0] == 1 ? 1 : b, l, s}))
        return false;
    *cx->out = (Type){.dtype = DAV_BOOL};
    return true;
}

bool shape_attention(const ShapeCx *cx)
{
    return check(cx, 3);
}

bool shape_attention_grad(const ShapeCx *cx)
{
    if (!check(cx, 6))
        return false;
    Type q = type_of(cx->g, cx->n->arg[0]);
    return expect(cx, 3, 2, q.dim) && expect(cx, 4, 2, q.dim) &&
           expect(cx, 5, 3, (int64_t[]){q.dim[0], q.dim[1], type_of(cx->g, cx->n->arg[2]).dim[2]});
}
