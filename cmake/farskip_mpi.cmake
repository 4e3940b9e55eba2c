# MPI::MPI_CXX, where the mpi transport is wanted and an MPI is there; FARSKIP_MPI says whether, from here on. Without its C++
# bindings, which MPI itself has given up.
set(MPI_CXX_SKIP_MPICXX ON)
if(FARSKIP_MPI AND FARSKIP_TORCH)
  find_package(MPI QUIET COMPONENTS CXX)
  if(MPI_CXX_FOUND)
    message(STATUS "MPI: ${MPI_CXX_LIBRARIES}")
  else()
    message(STATUS "MPI: none found, so the mpi transport is left out; libopenmpi-dev and openmpi-bin have one")
    set(FARSKIP_MPI OFF)
  endif()
endif()
