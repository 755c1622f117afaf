# cmake -DOUT=HEADER -DNAME=MACRO -DFILES=a,b,... -P source_hash.cmake: a header that defines MACRO as the hash of the files.
string(REPLACE "," ";" files "${FILES}")
foreach(file ${files})
  file(SHA256 ${file} one)
  string(APPEND all ${one})
endforeach()
string(SHA256 hash "${all}")
string(SUBSTRING ${hash} 0 16 hash)
file(WRITE ${OUT} "#define ${NAME} \"${hash}\"\n")
