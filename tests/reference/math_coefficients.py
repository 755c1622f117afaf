"""Writes codegen/llvm/math_coef.h: polynomials of the math functions, interpolated at Chebyshev nodes in 60 digits.

    python3 tests/reference/math_coefficients.py > codegen/llvm/math_coef.h
"""
from mpmath import mp, mpf, cos, pi, sqrt, exp, log, sin, atan, tanh, erf, erfc, matrix, lu_solve, taylor

mp.dps = 60




def fit(f, lo, hi, degree):
    lo, hi = mpf(lo), mpf(hi)
    n = degree + 1
    x = [(lo + hi) / 2 + (hi - lo) / 2 * cos(pi * (2 * i + 1) / (2 * n)) for i in range(n)]
    a = matrix(n, n)
    b = matrix(n, 1)
    for i in range(n):
        for j in range(n):
            a[i, j] = x[i] ** j
        b[i] = f(x[i])
    return list(lu_solve(a, b))


def by_series(closed, series, small):
    return lambda x: sum(c * x ** i for i, c in enumerate(series)) if abs(x) < small else closed(x)


fact = mp.factorial
E = by_series(lambda r: (exp(r) - 1 - r) / r ** 2, [1 / fact(i + 2) for i in range(30)], 0.01)
P = by_series(lambda r: (2 ** r - 1) / r, [log(2) ** (i + 1) / fact(i + 1) for i in range(30)], 0.01)
L = by_series(lambda f: (log(1 + f) - f + f * f / 2) / f ** 3, [mpf((-1) ** i) / (i + 3) for i in range(40)], 0.01)
S = by_series(lambda z: (sin(sqrt(z)) / sqrt(z) - 1) / z, [(-1) ** (i + 1) / fact(2 * i + 3) for i in range(20)], 0.01)
C = by_series(lambda z: (cos(sqrt(z)) - 1 + z / 2) / z ** 2, [(-1) ** i / fact(2 * i + 4) for i in range(20)], 0.01)
A = by_series(lambda z: (atan(sqrt(z)) / sqrt(z) - 1) / z, [mpf((-1) ** (i + 1)) / (2 * i + 3) for i in range(40)], 0.01)
tanh_odd = taylor(tanh, 0, 60)[3::2]
T = by_series(lambda z: (tanh(sqrt(z)) / sqrt(z) - 1) / z, tanh_odd, 0.01)
erf_even = [2 / sqrt(pi) * (-1) ** i / (fact(i) * (2 * i + 1)) for i in range(30)]
R = by_series(lambda z: erf(sqrt(z)) / sqrt(z) - 1, [erf_even[0] - 1] + erf_even[1:], 0.01)
G = lambda t: -log(erfc(t)) - t * t

table = [
    ("exp", E, -0.3467, 0.3467, 4, 10, "(exp(r) - 1 - r) / r^2"),
    ("log", L, -0.2929, 0.4143, 8, 22, "(log(1 + f) - f + f^2 / 2) / f^3"),
    ("sin", S, 0, 0.6170, 2, 6, "(sin(sqrt z) / sqrt z - 1) / z"),
    ("cos", C, 0, 0.6170, 2, 6, "(cos(sqrt z) - 1 + z / 2) / z^2"),
    ("atan", A, 0, 0.1716, 4, 12, "(atan(sqrt z) / sqrt z - 1) / z"),
    ("tanh", T, 0, 0.3601, 4, 11, "(tanh(sqrt z) / sqrt z - 1) / z"),
    ("erf", R, 0, 1.0001, 6, 15, "erf(sqrt z) / sqrt z - 1"),
    ("erfc", G, 1, (4.01, 6.01), 8, 28, "-log(erfc(t)) - t^2"),
]

exp2 = [("bf16", 2), ("f32", 5)]  # 2^x: precisions of the result; both are computed in f32

print("/* Made by tests/reference/math_coefficients.py: coefficients in ascending order, f32 and f64 forms. */")
print("#pragma once")
for name, f, lo, hi, d32, d64, doc in table:
    for kind, degree in (("f32", d32), ("f64", d64)):
        top = hi if not isinstance(hi, tuple) else hi[kind == "f64"]
        # erfc's polynomial is in u = t - 3
        shift = 3 if name == "erfc" else 0
        c = fit(lambda u: f(u + shift), lo - shift, top - shift, degree)
        worst = max(abs(sum(ci * x ** i for i, ci in enumerate(c)) - f(x + shift))
                    for x in [(lo - shift) + (top - lo) * mpf(i) / 301 for i in range(302)])
        print("/* %s on [%s, %s], error %s */" % (doc, lo, top, mp.nstr(worst, 3)))
        digits = 10 if kind == "f32" else 19
        print("static const double %s_%s[] = {%s};" % (name, kind, ", ".join(mp.nstr(x, digits) for x in c)))
for kind, degree in exp2:
    c = fit(P, 0, 1, degree)
    worst = max(abs((1 + x * sum(ci * x ** i for i, ci in enumerate(c))) / 2 ** x - 1) for x in [mpf(i) / 301 for i in range(302)])
    print("/* (2^r - 1) / r on [0, 1], error of 2^r %s of it */" % mp.nstr(worst, 3))
    print("static const double exp2_%s[] = {%s};" % (kind, ", ".join(mp.nstr(x, 10) for x in c)))
