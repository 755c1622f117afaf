#!/bin/bash
# Plants the bugs of mutants.txt one by one in a clone of this commit and runs the tests: each must be caught.
# usage: [MUTANTS=cuda_mutants.txt] tests/slow/mutants.sh FOLDER [NAME...]
#        FOLDER: where the clone lives; kept, so that a second run builds little
set -u
here=$(cd "$(dirname "$0")" && pwd)
root=$(cd "$here/../.." && pwd)
folder=${1:?usage: tests/slow/mutants.sh FOLDER [NAME...]}
shift
wanted=" $* "

if [ -d "$folder/.git" ]; then
    git -C "$folder" fetch -q "$root" HEAD && git -C "$folder" checkout -qf FETCH_HEAD || exit 2
else
    git clone -q "$root" "$folder" || exit 2
fi
cd "$folder" || exit 2
export XDG_CACHE_HOME=$folder/cache
cmake --preset default >/dev/null && ninja -C build >/dev/null || exit 2

programs="dav $(ninja -C build -t targets all | sed -n 's/^\(standin_[A-Za-z]*\): phony$/\1/p' | tr '\n' ' ')"
# The tests named first, then, once they are built, all others: the first one that fails has caught it.
caught_by() {
    local named=$1 t all
    all=$(cd build/tests && ls test_*)
    for t in $named all $all; do
        ninja -C build $programs "$t" >log 2>&1 || { echo "the compiler" && return; }
        [ -x "build/tests/$t" ] || continue
        timeout 900 "build/tests/$t" >log 2>&1
        case $? in
        0) ;;
        124) echo "$t, which no longer ends" && return ;;
        *) echo "$t" && return ;;
        esac
    done
}

# What fails without a bug would catch any.
for t in $(awk -F'\t' -v w="$wanted" '!/^#/ && NF > 3 && (w == "  " || index(w, " " $1 " ")) {print $4}' "$here/${MUTANTS:-mutants.txt}" | tr ' ' '\n' | sort -u); do
    timeout 900 "build/tests/$t" >log 2>&1 || { echo "$t fails without a planted bug" && exit 2; }
done

planted=0 missed=0
while IFS=$'\t' read -r name file edit tests; do
    case $name in '' | '#'*) continue ;; esac
    [ "$wanted" = "  " ] || [[ $wanted == *" $name "* ]] || continue
    planted=$((planted + 1))
    sed -i -E "$edit" "$file"
    if git diff --quiet; then
        echo "MISSED  $name: the edit of $file changes nothing"
        missed=$((missed + 1))
        continue
    fi
    by=$(caught_by "$tests")
    git checkout -q -- .
    if [ -n "$by" ]; then
        echo "caught  $name ($file) by $by"
    else
        echo "MISSED  $name ($file)"
        missed=$((missed + 1))
    fi
done <"$here/${MUTANTS:-mutants.txt}"
echo "$planted planted, $((planted - missed)) caught, $missed missed"
[ "$missed" = 0 ]
