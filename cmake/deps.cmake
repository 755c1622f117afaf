# Libraries the project stands on; all are Debian packages (./dev installs them).
find_package(OpenMP REQUIRED COMPONENTS C)
find_package(ZLIB REQUIRED)

function(dav_dep name header lib)
  find_path(${name}_inc ${header} REQUIRED)
  add_library(dep_${name} INTERFACE)
  target_include_directories(dep_${name} SYSTEM INTERFACE ${${name}_inc})
  if(lib)
    find_library(${name}_lib ${lib} REQUIRED)
    target_link_libraries(dep_${name} INTERFACE ${${name}_lib})
  endif()
endfunction()

dav_dep(xxhash xxhash.h xxhash)
dav_dep(zstd zstd.h zstd)
dav_dep(jansson jansson.h jansson)
dav_dep(yaml yaml.h yaml)
dav_dep(edlib edlib.h edlib)
dav_dep(random123 Random123/philox.h "")
dav_dep(cmocka cmocka.h cmocka)
dav_dep(flatbuffers flatbuffers/flatbuffers.h "")
add_library(dep_zlib ALIAS ZLIB::ZLIB)

find_program(LLVM_CONFIG NAMES llvm-config-22 REQUIRED)
execute_process(COMMAND ${LLVM_CONFIG} --includedir OUTPUT_VARIABLE llvm_inc OUTPUT_STRIP_TRAILING_WHITESPACE)
execute_process(COMMAND ${LLVM_CONFIG} --libdir OUTPUT_VARIABLE llvm_lib OUTPUT_STRIP_TRAILING_WHITESPACE)
# The real path lies in the linker's own folder. LLVM's folder must not become a run path: LLVM's OpenMP stands there under
# the name of gcc's.
find_library(llvm_library NAMES LLVM-22 HINTS ${llvm_lib} REQUIRED)
file(REAL_PATH ${llvm_library} llvm_library)
add_library(dep_llvm INTERFACE)
target_include_directories(dep_llvm SYSTEM INTERFACE ${llvm_inc})
target_link_libraries(dep_llvm INTERFACE ${llvm_library})
