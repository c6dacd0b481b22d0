"""The engine that xarray finds: ``engine="caterva2"``. What it opens is decided in ``opening``."""

from __future__ import annotations

import os
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from xarray.backends.common import BackendEntrypoint

if TYPE_CHECKING:
    import xarray as xr

__all__ = ["Caterva2BackendEntrypoint"]

# Not from ``client.address``: xarray imports this for each guess, also where nothing of ours is opened.
_SCHEMES = ("cat2://", "cat2http://", "cat2https://", "cat2http+unix://")

_OPENED = {("caterva2_jupyter.client.group", "Group"), ("caterva2_jupyter.client.remote_array", "RemoteArray")}


class Caterva2BackendEntrypoint(BackendEntrypoint):
    """Opens addresses of a Caterva2 service: HDF5 and netCDF4 files, their groups, directories of ``.b2nd``, arrays.

    Examples
    --------
    >>> import xarray as xr
    >>> xr.open_dataset("cat2://foo/dir1", engine="caterva2")["ds-2d"].shape
    (10, 20)
    >>> xr.open_datatree("cat2://foo", engine="caterva2")["dir1/ds-2d"].shape
    (10, 20)
    >>> sorted(xr.open_groups("cat2://foo", engine="caterva2"))
    ['/', '/dir1', '/dir2']
    """

    description = "Open HDF5, netCDF4 and Blosc2 arrays of a Caterva2 service, lazily (cat2://ROOT/PATH)"
    supports_groups = True

    def guess_can_open(self, filename_or_obj: Any) -> bool:
        """Is it an address with one of our schemes, or a group or array that a client opened? Asks no one."""
        if isinstance(filename_or_obj, str):
            return filename_or_obj.startswith(_SCHEMES)
        # Engines that are asked before this one, such as netCDF4's, claim texts alone. Nothing is imported for it.
        opened = type(filename_or_obj)
        return (opened.__module__, opened.__name__) in _OPENED

    def open_dataset(
        self,
        filename_or_obj: Any,
        *,
        mask_and_scale: Any = True,
        decode_times: Any = True,
        concat_characters: Any = True,
        decode_coords: Any = True,
        drop_variables: str | Iterable[str] | None = None,
        use_cftime: Any = None,
        decode_timedelta: Any = None,
        group: str | None = None,
        phony_dims: str | None = None,
        decode_vlen_strings: bool = True,
        version: str | None = None,
    ) -> xr.Dataset:
        """Open one group, or one array with its coordinates.

        Parameters
        ----------
        filename_or_obj : str, Group or RemoteArray
            ``cat2://ROOT/PATH`` or ``cat2http(s)://HOST/BASE/-/ROOT/PATH``, or what a client opened.
        mask_and_scale, decode_times, concat_characters, decode_coords, use_cftime, decode_timedelta
            As for xarray's own engines.
        drop_variables : str or iterable of str, optional
            Left out, and not read.
        group : str, optional
            Path of a group in the file or directory.
        phony_dims : {"access", "sort"}, optional
            How axes that nothing names are called, as for h5netcdf.
        decode_vlen_strings : bool
            Strings of variable length as ``str``, not as bytes.
        version : str, optional
            Open this version only (``client[...].version``); dask's names are made of it too.

        Returns
        -------
        xarray.Dataset
            Pinned to the version of now: what changes later raises `DatasetChangedError` when it is read.

        Raises
        ------
        InvalidPathError, RootNotFoundError, DatasetNotFoundError, DatasetChangedError, SourceUnavailableError

        Warns
        -----
        UserWarning
            Names what is in the group and cannot be read, with the reasons.
        """
        from . import accessor, opening

        accessor.register_accessors()
        mode = opening.parse_phony_dims(phony_dims)
        decoding = opening.Decoding(
            mask_and_scale, decode_times, concat_characters, decode_coords, use_cftime, decode_timedelta
        )
        return opening.open_dataset(
            _target(filename_or_obj),
            group,
            decoding,
            opening.dropped(drop_variables),
            phony_dims=mode,
            decode_vlen_strings=decode_vlen_strings,
            version=version,
        )

    def open_groups_as_dict(
        self,
        filename_or_obj: Any,
        *,
        mask_and_scale: Any = True,
        decode_times: Any = True,
        concat_characters: Any = True,
        decode_coords: Any = True,
        drop_variables: str | Iterable[str] | None = None,
        use_cftime: Any = None,
        decode_timedelta: Any = None,
        group: str | None = None,
        phony_dims: str | None = None,
        decode_vlen_strings: bool = True,
        version: str | None = None,
    ) -> dict[str, xr.Dataset]:
        """Every group from one on, by its path; parameters as for ``open_dataset``."""
        from . import accessor, opening

        accessor.register_accessors()
        mode = opening.parse_phony_dims(phony_dims)
        decoding = opening.Decoding(
            mask_and_scale, decode_times, concat_characters, decode_coords, use_cftime, decode_timedelta
        )
        return opening.open_groups(
            _target(filename_or_obj),
            group,
            decoding,
            opening.dropped(drop_variables),
            phony_dims=mode,
            decode_vlen_strings=decode_vlen_strings,
            version=version,
        )

    def open_datatree(
        self,
        filename_or_obj: Any,
        *,
        mask_and_scale: Any = True,
        decode_times: Any = True,
        concat_characters: Any = True,
        decode_coords: Any = True,
        drop_variables: str | Iterable[str] | None = None,
        use_cftime: Any = None,
        decode_timedelta: Any = None,
        group: str | None = None,
        phony_dims: str | None = None,
        decode_vlen_strings: bool = True,
        version: str | None = None,
    ) -> xr.DataTree:
        """Every group from one on, as a tree; parameters as for ``open_dataset``."""
        import xarray as xr

        groups = self.open_groups_as_dict(
            filename_or_obj,
            mask_and_scale=mask_and_scale,
            decode_times=decode_times,
            concat_characters=concat_characters,
            decode_coords=decode_coords,
            drop_variables=drop_variables,
            use_cftime=use_cftime,
            decode_timedelta=decode_timedelta,
            group=group,
            phony_dims=phony_dims,
            decode_vlen_strings=decode_vlen_strings,
            version=version,
        )
        return xr.DataTree.from_dict(groups)


def _target(filename_or_obj: Any) -> Any:
    return os.fspath(filename_or_obj) if isinstance(filename_or_obj, os.PathLike) else filename_or_obj
