# What `cmake --install` puts where: headers, libregard.so, the command, a CMake package and a pkg-config file.
# The installed library needs nothing but its own shared object: OpenMP and threads are linked into it.
include(CMakePackageConfigHelpers)

set(REGARD_PACKAGE_DIR ${CMAKE_INSTALL_LIBDIR}/cmake/regard)

install(DIRECTORY include/regard DESTINATION ${CMAKE_INSTALL_INCLUDEDIR} FILES_MATCHING PATTERN "*.h")
install(TARGETS regard EXPORT regardTargets LIBRARY DESTINATION ${CMAKE_INSTALL_LIBDIR})
if(TARGET regard_cli)
  install(TARGETS regard_cli RUNTIME DESTINATION ${CMAKE_INSTALL_BINDIR})
endif()

install(EXPORT regardTargets NAMESPACE regard:: DESTINATION ${REGARD_PACKAGE_DIR})
configure_package_config_file(cmake/regardConfig.cmake.in ${PROJECT_BINARY_DIR}/regardConfig.cmake
  INSTALL_DESTINATION ${REGARD_PACKAGE_DIR} NO_SET_AND_CHECK_MACRO)
write_basic_package_version_file(${PROJECT_BINARY_DIR}/regardConfigVersion.cmake COMPATIBILITY SameMinorVersion)
install(FILES ${PROJECT_BINARY_DIR}/regardConfig.cmake ${PROJECT_BINARY_DIR}/regardConfigVersion.cmake
  DESTINATION ${REGARD_PACKAGE_DIR})

# The pkg-config file finds its prefix from where it lies, so that an installed tree may be moved.
file(RELATIVE_PATH REGARD_PC_TO_PREFIX /${CMAKE_INSTALL_LIBDIR}/pkgconfig /)
configure_file(regard.pc.in ${PROJECT_BINARY_DIR}/regard.pc @ONLY)
install(FILES ${PROJECT_BINARY_DIR}/regard.pc DESTINATION ${CMAKE_INSTALL_LIBDIR}/pkgconfig)

install(FILES LICENSE README.md CHANGELOG.md DESTINATION ${CMAKE_INSTALL_DOCDIR})
install(DIRECTORY docs/ DESTINATION ${CMAKE_INSTALL_DOCDIR} FILES_MATCHING PATTERN "*.md")
